// Package authztest tests that a server enforces its OpenAPI document. For every operation, and
// every alternative of its security, [Cases] derives from the document the requests that must be
// refused, with the expected response, and the requests that must succeed. New operations are
// covered without changing a test.
//
//	func TestConformance(t *testing.T) {
//		authztest.Run(t, authztest.Target{
//			Document: document,
//			Handler:  server,
//			Tokens:   authztest.Issued(issuer), // a devissuer.Issuer that the server trusts
//		})
//	}
//
// runs one subtest per case:
//
//	TestConformance/listMessages/no_token
//	TestConformance/listMessages/alg_none
//	TestConformance/listMessages/scope_read:messages_removed
//
// The package only uses HTTP, in process or over the network, so the server can be written in any
// language. Which cases it can test depends on the target: without tokens, those that need none;
// with valid tokens, also those that can be forged from one; with the issuer's signature
// ([Tokens.Sign]), all of them. Other cases are reported as skipped.
//
// Valid requests are generated from the document: from its examples, defaults and enumerations if
// it has them, otherwise from its schemas. If that is impossible, for example because a resource
// must exist, the report says so: add an example to the document, or a [Request] to
// [Target.Requests].
//
// Every operation is called with a valid request and a sufficient token. Do not use the package
// with data that must not change, or exclude such cases with [Target.Skip].
package authztest
