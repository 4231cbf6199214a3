// Package client is for those who call an API that package authz guards, or any other that takes
// OAuth access tokens.
//
// A [Source] gets access tokens as a client of its own, by the client credentials grant (RFC 6749
// §4.4), and keeps each for as long as it is good. [Source.Client] is an http.Client that sends
// them to the API and nowhere else:
//
//	source, err := client.New(ctx, client.Config{
//		Issuer:   "https://tenant.eu.auth0.com/",
//		ClientID: "…", ClientSecret: os.Getenv("OASGATE_CLIENT_SECRET"),
//		Audience: "https://api.example.com",
//		Scopes:   client.Scopes(apiclient.ScopesFor(apiclient.ListMessages)),
//	})
//	caller, err := source.Client("https://api.example.com")
//	api, err := apiclient.NewClientWithResponses("https://api.example.com", apiclient.WithHTTPClient(caller))
//
// With Config.API in place of Issuer, the API says who issues its tokens, and for which scopes to
// ask (RFC 9728).
//
// With Config.DPoP the tokens are bound to a key that never leaves the process (RFC 9449): whoever
// sees one cannot use it. [Discover] asks an issuer where its endpoints are, for other grants.
//
// The package imports nothing else of this module, so that a client is not made to carry a server.
package client
