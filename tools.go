//go:build generate

// The code generator's instructions. The tag must be one that `go generate` itself sets: under any
// other it skips this file without a word. Normal builds never see it.
package main

//go:generate go tool oapi-codegen -config .oapi-codegen.yaml openapi.yaml
//go:generate go tool oapi-codegen -config impl/messages/.oapi-codegen.yaml openapi.yaml
//go:generate go run ./authz/cmd/authz scopes -o gen/scopes.gen.go openapi.yaml
//go:generate go run ./authz/cmd/authz scopes -o gen/apiclient/scopes.gen.go openapi.yaml
