// Program chi guards a server on chi by openapi.yaml, with code that oapi-codegen generates:
//
//	ISSUER=https://tenant.example/ AUDIENCE=https://orders.example go run ./chi
package main

//go:generate go tool oapi-codegen -config oapi-codegen.yaml ../openapi.yaml

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/token"
)

func main() {
	document, err := openapi3.NewLoader().LoadFromFile("openapi.yaml")
	if err != nil {
		log.Fatal(err)
	}
	verifier, err := token.NewVerifier(context.Background(), token.Config{Issuers: []token.Issuer{{
		URL:       os.Getenv("ISSUER"),
		Audiences: []string{os.Getenv("AUDIENCE")},
	}}})
	if err != nil {
		log.Fatal(err)
	}
	handler, err := newHandler(document, verifier)
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{
		Addr:              "localhost:8080",
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
	}
	log.Fatal(server.ListenAndServe())
}

// newHandler returns the guarded API. The error lists every fault of the document and the routes.
func newHandler(document *openapi3.T, verifier *token.Verifier) (http.Handler, error) {
	gate, err := authz.New(authz.Config{Document: document, Verifier: verifier})
	if err != nil {
		return nil, err
	}
	router := newRouter(authz.Gates{gate})
	handlers := NewStrictHandlerWithOptions(orders{}, nil, StrictHTTPServerOptions{
		RequestErrorHandlerFunc:  gate.WriteBindingProblem,
		ResponseErrorHandlerFunc: gate.WriteProblem,
	})
	HandlerWithOptions(handlers, ChiServerOptions{
		BaseRouter:       router.With(guard(gate)),
		ErrorHandlerFunc: gate.WriteBindingProblem,
	})
	return router, checkRoutes(router, authz.Gates{gate})
}

// orders are the handlers.
type orders struct{}

func (orders) GetHealth(context.Context, GetHealthRequestObject) (GetHealthResponseObject, error) {
	return text("ok\n"), nil
}

func (orders) GetOrder(
	ctx context.Context, request GetOrderRequestObject,
) (GetOrderResponseObject, error) {
	caller, _ := token.FromContext(ctx)
	return text(fmt.Sprintf("order %d, read by %s\n", request.Id, caller.Subject())), nil
}

func (orders) PutOrder(context.Context, PutOrderRequestObject) (PutOrderResponseObject, error) {
	return PutOrder204Response{}, nil
}

// text is an answer that the document does not describe further.
type text string

func (t text) VisitGetHealthResponse(w http.ResponseWriter) error { return t.write(w) }
func (t text) VisitGetOrderResponse(w http.ResponseWriter) error  { return t.write(w) }

func (t text) write(w http.ResponseWriter) error {
	_, err := fmt.Fprint(w, string(t))
	return err
}
