// Package token verifies OAuth access tokens.
//
// A [Verifier] takes the compact form of a JWT access token and returns a [Principal], or a typed
// [Error] that names the check that failed. The package does not depend on an HTTP server or an
// OpenAPI document; it reads scopes but does not authorize. It is the only package of the module
// that imports a JOSE library, and it uses that library for keys and signatures only: the compact
// form (RFC 7515 §7.1), the header and the claims are parsed here, strictly, because
// general-purpose JWT parsers accept forms that let claims be forged.
//
// [Verifier.Verify] runs these steps:
//
//	parseCompact  three segments of canonical base64url           compact.go
//	parseHeader   alg, kid, typ; nothing that changes meaning     header.go
//	parseClaims   a JSON object with unique names                 claims.go
//	issuer        matched by exact iss, before any key            token.go, tenant.go
//	check         audience, times, binding                        claims.go, binding.go
//	find          the key, by kid, in that issuer's own set       source.go, discovery.go, keyset.go
//	verify        the signature, by the key's own algorithm       algorithm.go
//
// [Verifier.VerifyDPoP] runs the same steps for a token that is bound to a key of the client (DPoP,
// RFC 9449), checks the proof before and after them (dpop.go), and records the proof as used last
// (replay.go).
//
// Introspection (RFC 7662), where it is configured, is the last step for a JWT and the only step
// for an opaque token (introspect.go). Config.Resolve finds issuers that are not configured
// (resolve.go).
//
// Checks that need no key run before the key is fetched, so that a bad token is rejected during an
// outage of its issuer too, and malformed input never causes an outbound request.
package token
