// Package authztest proves that a server enforces its OpenAPI document. The document that guards an
// API also says how to test that it is guarded: for every operation, and every alternative of its
// security, [Cases] derives the requests that must be refused, how, and those that must be let in.
// A new operation is covered with no test edited.
//
//	func TestConformance(t *testing.T) {
//		authztest.Run(t, authztest.Target{
//			Document: document,
//			Handler:  server,
//			Tokens:   authztest.Issued(issuer), // a devissuer.Issuer that the server trusts
//		})
//	}
//
// gives one subtest per case:
//
//	TestConformance/listMessages/no_token
//	TestConformance/listMessages/alg_none
//	TestConformance/listMessages/scope_read:messages_removed
//
// The server may be any: the kit only speaks HTTP to it, in process or over the network. What it
// can prove depends on what it is given. Without tokens it tries what needs none; with genuine
// tokens also what can be forged from one; with the issuer's signature ([Tokens.Sign]) all of it.
// What could not be tried is reported as skipped.
//
// Valid requests are built from the document: from examples, defaults and enumerations where it has
// them, else from its schemas. Where that cannot succeed (a resource must exist, a pattern is too
// intricate) the report says so; then give an example in the document, or a [Request] in
// [Target.Requests].
//
// Every operation is called for real, with a valid request and a token that suffices: do not point
// the kit at data that matters, or leave such cases out with [Target.Skip].
package authztest
