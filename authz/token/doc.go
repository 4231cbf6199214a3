// Package token answers one question: is this access token genuine, and what does it say?
//
// A [Verifier] takes the compact form of a JWT access token and returns a [Principal], or a typed
// [Error] that names the check that failed. It knows no HTTP server and no OpenAPI document; scopes
// are read here and judged elsewhere. It is the only package of the module that knows a JOSE
// library, and it uses that library for keys and signatures alone: the compact form (RFC 7515
// §7.1), the header and the claims are parsed here, strictly, because general-purpose JWT parsers
// accept forms that let claims be forged.
//
// The way of a token, in [Verifier.Verify]:
//
//	parseCompact  three segments of canonical base64url           compact.go
//	parseHeader   alg, kid, typ; nothing that changes meaning     header.go
//	parseClaims   a JSON object with unique names                 claims.go
//	issuer        matched by exact iss, before any key            token.go, tenant.go
//	check         audience, times, binding                        claims.go, binding.go
//	find          the key, by kid, in that issuer's own set       source.go, discovery.go, keyset.go
//	verify        the signature, by the key's own algorithm       algorithm.go
//
// A token that is bound to a key of the client (DPoP, RFC 9449) goes the same way in
// [Verifier.VerifyDPoP], between the checks of the proof that comes with it (dpop.go), which is
// used up at the very end (replay.go).
//
// Where the issuer is to be asked about a token (RFC 7662), that comes last, and for a token that
// is no JWT it is all there is (introspect.go). Issuers that are not configured are found by
// Config.Resolve (resolve.go).
//
// Everything that can be said without a key is said without a key, so that an outage of an issuer
// is never mistaken for a bad token, and rubbish never causes an outbound call.
package token
