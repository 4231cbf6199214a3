// Program nethttp guards a server on net/http by openapi.yaml:
//
//	ISSUER=https://tenant.example/ AUDIENCE=https://orders.example go run ./nethttp
package main

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
	mux := gate.Mux() // for generated code, it is BaseRouter
	mux.HandleFunc("GET /health", getHealth)
	mux.HandleFunc("GET /orders/{id}", getOrder)
	mux.HandleFunc("PUT /orders/{id}", putOrder)
	return mux, mux.CheckRoutes()
}

func getHealth(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, "ok")
}

func getOrder(w http.ResponseWriter, r *http.Request) {
	caller, _ := token.FromContext(r.Context())
	fmt.Fprintf(w, "order %s, read by %s\n", r.PathValue("id"), caller.Subject())
}

func putOrder(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusNoContent)
}
