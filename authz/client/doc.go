// Package client is for those who call an API that package authz guards, or any other that wants OAuth access tokens.
//
// [Discover] asks an issuer where its endpoints are.
package client
