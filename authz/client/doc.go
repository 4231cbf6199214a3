// Package client calls APIs that accept OAuth access tokens, such as those that package authz
// guards.
//
// A [Source] fetches access tokens by the client credentials grant (RFC 6749 §4.4) and keeps each
// while it is valid. [Source.Client] is an http.Client that sends them to the API and nowhere else:
//
//	source, err := client.New(ctx, client.Config{
//		Issuer:   "https://tenant.eu.auth0.com/",
//		ClientID: "…", ClientSecret: os.Getenv("CLIENT_SECRET"),
//		Audience: "https://api.example.com",
//		Scopes:   client.Scopes(apiclient.ScopesFor(apiclient.ListMessages)),
//	})
//	caller, err := source.Client("https://api.example.com")
//	api, err := apiclient.NewClientWithResponses("https://api.example.com", apiclient.WithHTTPClient(caller))
//
// With Config.API in place of Issuer, the API's metadata names the issuer and the scopes (RFC
// 9728).
//
// With Config.DPoP the tokens are bound to a key in this process (RFC 9449): a stolen token is of
// no use. [Discover] finds an issuer's endpoints, for other grants.
//
// The package imports nothing else of this module, so that clients do not depend on a server.
package client
