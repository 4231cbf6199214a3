//go:build generate

// The commands of go generate. The build tag must be generate, which go generate sets: with another
// tag it ignores this file. Builds ignore it.
package main

//go:generate go tool oapi-codegen -config .oapi-codegen.yaml openapi.yaml
//go:generate go tool oapi-codegen -config impl/messages/.oapi-codegen.yaml openapi.yaml
//go:generate go run ./authz/cmd/authz scopes -o gen/scopes.gen.go openapi.yaml
//go:generate go run ./authz/cmd/authz scopes -o gen/apiclient/scopes.gen.go openapi.yaml
