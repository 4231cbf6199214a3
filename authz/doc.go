// Package authz makes an OpenAPI document the access policy of an HTTP API.
//
// A [Gate] is built once from the document. It then decides every request before a handler runs:
//
//	match         which operation is this? an unknown one is 404 or 405, before any token is looked at
//	authenticate  read the credential, verify it once              400, 401, 503
//	authorize     the operation's alternatives against its scopes  403
//	validate      parameters, then the body, against the schemas   400, 413, 415
//
// and what the document does not describe is refused. No byte of a body is read before the token is accepted.
// The kin-openapi request validator drives it: authenticate and authorize are what its AuthenticationFunc does.
//
// Adapters guard a router: packages echov4 and echov5. They decide by the route that the router has
// matched, and refuse, at start, routes that the document does not describe and operations that no
// route serves. For other routers, [Gate.Check] is the decision and [Gate.WriteProblem] the answer.
//
// Whether a token is genuine is the business of package token.
package authz
