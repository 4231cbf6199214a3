// Package authz makes an OpenAPI document the access policy of an HTTP API.
//
// A [Gate] is built once from the document. It checks every request before a handler runs:
//
//	match         find the operation; an unknown one is 404 or 405, before any token is read
//	authenticate  read the credential, verify it once              400, 401, 503
//	authorize     the operation's alternatives against its scopes  403
//	validate      parameters, then the body, against the schemas   400, 413, 415
//
// It refuses what the document does not describe, and reads no byte of a body before the token is
// accepted. Authenticate and authorize run as the AuthenticationFunc of the kin-openapi request
// validator.
//
// Adapters guard a router: [Gate.Mux] that of net/http, packages echov4 and echov5 those of Echo.
// They check the route that the router has matched, before generated code reads the request. At
// start they report routes that the document does not describe and operations without a route. For
// other routers, call [Gate.Check] and [Gate.WriteProblem]; authz/examples has programs for chi and
// gin.
//
// Security schemes of type bearer, oauth2 and openIdConnect accept access tokens, which package
// token verifies. Any scheme can have an [Authenticator] instead: [APIKey], [Basic], [MutualTLS] or
// the program's own. These are the rules for alternatives:
//
//	several schemes in one alternative   each must have a principal with the scopes required of that
//	                                     scheme; scopes of several principals are not combined
//	several alternatives                 one is enough; a bad key next to a good token is ignored
//	{} among them                        admits requests without credentials; a credential that is
//	                                     bad, or cannot be checked, is refused
//	none satisfied                       503 if a credential could not be checked, else 403 if one
//	                                     lacked only scopes, else 401
//	only credentials that browsers add   403 for unsafe requests from pages of another origin
//	by themselves
//
// [Admission.Principal] is the caller, and [Admission.PrincipalOf] the principal of each scheme.
package authz
