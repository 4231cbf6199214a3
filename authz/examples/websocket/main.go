// Program websocket upgrades requests to WebSocket, guarded by openapi.yaml:
//
//	ISSUER=https://tenant.example/ AUDIENCE=https://echo.example go run ./websocket
//
// The gate decides about the request that opens the connection. Pages cannot set its Authorization
// header, so they are authenticated by a cookie, and by the origin of the page: see
// [authz.Config.CookieOrigins]. The server closes the connection when the token expires.
package main

import (
	"context"
	"crypto/subtle"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"

	"github.com/coder/websocket"
	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/server"
	"github.com/oasgate/oasgate/authz/token"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	document, err := openapi3.NewLoader().LoadFromFile("websocket/openapi.yaml")
	if err != nil {
		log.Fatal(err)
	}
	s, err := newServer(document, os.Getenv("SESSION"), token.Issuer{
		URL:       os.Getenv("ISSUER"),
		Audiences: []string{os.Getenv("AUDIENCE")},
	})
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "localhost:8080")
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(s.Serve(ctx, listener))
}

// newServer returns the guarded API. There is one session, whose cookie has this value; a program
// would look it up.
func newServer(document *openapi3.T, session string, issuer token.Issuer) (*server.Server, error) {
	sessions := func(_ context.Context, cookie string) (*token.Principal, error) {
		if session == "" || subtle.ConstantTimeCompare([]byte(cookie), []byte(session)) == 0 {
			return nil, authz.ErrBadCredential
		}
		return token.NewPrincipal(token.PrincipalConfig{Subject: "alice"})
	}
	return server.New(context.Background(), server.Config{
		Document: document,
		Issuers:  []token.Issuer{issuer},
		Gate: func(c *authz.Config) {
			c.Authenticators = map[string]authz.Authenticator{
				"sessionCookie": authz.APIKey(sessions),
			}
			c.CookieOrigins = []string{"https://app.example"}
		},
		Routes: func(gate *authz.Gate) (http.Handler, error) {
			mux := gate.Mux()
			mux.HandleFunc("GET /echo", echo)
			return mux, mux.CheckRoutes()
		},
	})
}

// echo sends back each message, until the client closes the connection or the token expires. Both
// end its context.
func echo(w http.ResponseWriter, r *http.Request) {
	// The gate has checked the origin, with the list that it has.
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return // Accept has answered
	}
	defer conn.CloseNow()
	ctx := r.Context()
	for {
		kind, message, err := conn.Read(ctx)
		if err != nil {
			return
		}
		if err := conn.Write(ctx, kind, message); err != nil {
			return
		}
	}
}
