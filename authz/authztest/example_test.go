package authztest_test

import (
	"context"
	"fmt"
	"log"
	"net/http"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz/authztest"
)

// A server that does not guard its only operation, tested without tokens.
func ExampleCheck() {
	document, err := openapi3.NewLoader().LoadFromData([]byte(`
openapi: 3.1.0
info: {title: Orders, version: "1"}
paths:
  /orders/{id}:
    get:
      operationId: getOrder
      security: [{bearer: ["orders:read"]}]
      parameters: [{name: id, in: path, required: true, schema: {type: integer}}]
      responses: {default: {description: An order.}}
components:
  securitySchemes:
    bearer: {type: http, scheme: bearer, x-scopes: {"orders:read": Read orders}}
`))
	if err != nil {
		log.Fatal(err)
	}
	report, err := authztest.Check(context.Background(), authztest.Target{
		Document: document,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintln(w, "order", r.URL.Path)
		}),
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, result := range report.Failed() {
		fmt.Println(result.Case.Name, result.Faults)
	}
	// Output:
	// getOrder/no_token [expected 401 (missing-token), received 200]
	// getOrder/wrong_scheme [expected 401 (missing-token), received 200]
	// getOrder/malformed [expected 401 (invalid-token), received 200]
	// getOrder/invalid_body_without_token [expected 401 (missing-token), received 200]
	// getOrder/huge_body_without_token [expected 401 (missing-token), received 200]
	// getOrder/alg_none [expected 401 (invalid-token), received 200]
	// getOrder/wrong_key [expected 401 (invalid-token), received 200]
	// getOrder/embedded_jwk [expected 401 (invalid-token), received 200]
}
