// Package authz makes an OpenAPI document the access policy of an HTTP API.
//
// A [Gate] is built once from the document. It then decides every request before a handler runs:
//
//	match         which operation is this? an unknown one is 404 or 405, before any token is looked at
//	authenticate  read the credential, verify it once              400, 401, 503
//	authorize     the operation's alternatives against its scopes  403
//	validate      parameters, then the body, against the schemas   400, 413, 415
//
// and what the document does not describe is refused. No byte of a body is read before the token is
// accepted. The kin-openapi request validator drives it: authenticate and authorize are what its
// AuthenticationFunc does.
//
// Adapters guard a router: [Gate.Mux] that of net/http, packages echov4 and echov5 those of Echo.
// They decide by the route that the router has matched, before generated code reads the request,
// and refuse, at start, routes that the document does not describe and operations that no route
// serves. For other routers, [Gate.Check] is the decision and [Gate.WriteProblem] the answer;
// authz/examples has programs for chi and gin.
//
// Security schemes of type bearer, oauth2 and openIdConnect take access tokens; whether a token is
// genuine is the business of package token. The others, and any of these, can have an
// [Authenticator]: [APIKey], [Basic], [MutualTLS] or the program's own. Alternatives are decided as
// follows:
//
//	several schemes in one alternative   each must have a principal, with the scopes that are
//	                                     demanded of that very scheme; scopes are never added up
//	several alternatives                 one is enough, whatever the others come to: a bad key beside
//	                                     a good token changes nothing
//	{} among them                        lets in who has no credential; one that is bad, or cannot be
//	                                     checked, is refused
//	none satisfied                       503 if a credential could not be checked and might have done,
//	                                     else 403 if one only lacked scopes, else 401
//	only credentials that browsers add   what changes something must not come from a page of another
//	by themselves                        origin: 403
//
// [Admission.Principal] is the caller, and [Admission.PrincipalOf] the principal of each scheme.
package authz
