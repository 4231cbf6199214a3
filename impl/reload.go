package impl

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz"
	oauthclient "github.com/oasgate/oasgate/authz/client"
	"github.com/oasgate/oasgate/authz/echov4"
	"github.com/oasgate/oasgate/authz/token"
	"github.com/oasgate/oasgate/gen"
	"github.com/oasgate/oasgate/impl/docs"
)

// guard is all that the issuers decide: who verifies tokens, the gate that asks, and the API behind it. It does not
// change; other issuers make another.
type guard struct {
	verifier *token.Verifier
	gate     *authz.Gate
	api      http.Handler
	docs     *docs.Docs         // nil: off
	end      context.CancelFunc // of the verifier's work in the background
}

// newGuard builds the API anew, around a verifier that begins with the keys of the one before, if any.
func (s *Server) newGuard(issuers []token.Issuer, before *token.Verifier) (_ *guard, err error) {
	ctx, end := context.WithCancel(s.life)
	defer func() {
		if err != nil {
			end()
		}
	}()
	document, err := gen.GetSpec()
	if err != nil {
		return nil, fmt.Errorf("the embedded document does not load: %w: generate it again with `go generate ./...`", err)
	}
	verifier, err := token.NewVerifier(ctx, token.Config{
		Issuers: issuers, Logger: s.log, Predecessor: before,
		Proofs: token.ProofPolicy{Replays: s.config.Replays, NonceKey: s.config.Settings.NonceKey},
	})
	if err != nil {
		return nil, err
	}
	var urls []string
	for _, issuer := range issuers {
		urls = append(urls, issuer.URL)
	}
	gate, err := authz.New(authz.Config{
		Document: document, Verifier: verifier,
		Resource: s.config.Settings.Resource, AuthorizationServers: urls,
		InsecureExplain: s.config.InsecureIssuer != nil,
	})
	if err != nil {
		return nil, err
	}

	// What the document describes, and nothing else: the gate refuses to start on any other route of this instance.
	e := echo.New()
	e.IPExtractor = s.remoteIP
	handle := echov4.ErrorHandler(gate)
	e.HTTPErrorHandler = func(err error, c echo.Context) {
		exchangeOf(c.Request()).err = err // for the log
		handle(err, c)
	}
	e.Use(echov4.Middleware(gate)) // match, authenticate, authorize, validate
	gen.RegisterHandlers(e, gen.NewStrictHandler(s.config.Handlers, nil))
	if err := errors.Join(echov4.CheckRoutes(gate, e), s.checkPaths(gate)); err != nil {
		return nil, err
	}
	page, err := s.newDocs(ctx, issuers)
	if err != nil {
		return nil, err
	}
	return &guard{verifier, gate, e, page, end}, nil
}

// newDocs makes the page at /docs, with a document of its own; nil where it is off.
func (s *Server) newDocs(ctx context.Context, issuers []token.Issuer) (*docs.Docs, error) {
	if !s.config.Settings.Docs {
		return nil, nil
	}
	document, err := gen.GetSpec()
	if err != nil {
		return nil, err
	}
	document.InternalizeRefs(ctx, nil) // what is in other files comes along
	config := docs.Config{
		Document: document, Resource: s.config.Settings.Resource, Logger: s.log, Refuse: s.refuse,
		InsecureClients: s.config.InsecureClients,
		Discover: func(ctx context.Context, issuer string) (authorize, token string, err error) {
			found, err := oauthclient.Discover(ctx, nil, issuer)
			return found.Authorization, found.Token, err
		},
	}
	for _, issuer := range issuers {
		config.Issuers = append(config.Issuers, docs.Issuer{URL: issuer.URL, Audience: issuer.Audiences[0]})
	}
	return docs.New(ctx, config)
}

func (s *Server) enforce(g *guard, issuers []token.Issuer) {
	s.guard.Store(g)
	for _, issuer := range issuers {
		s.log.Info("accepting tokens", "issuer", issuer.URL, "audience", issuer.Audiences)
	}
}

// Reload puts other issuers in force, or returns what is wrong with them, joined, and then all is as it was. Requests
// under way go on as they began; those that come later meet the new issuers, and no verdict of before.
//
// It waits for nobody: issuers that stay keep the keys that are had of them, also while they are down, and those that
// are new answer their first requests once their keys have come. One that cannot be reached concerns its tokens alone.
func (s *Server) Reload(issuers []token.Issuer) error {
	s.reload.Lock()
	defer s.reload.Unlock()
	before := s.guard.Load()
	next, err := s.newGuard(issuers, before.verifier)
	if err != nil {
		return err
	}
	s.enforce(next, issuers)
	go next.verifier.Ready(s.life) // spares the first request the wait
	// A request under way may wait for keys as long as it lasts.
	time.AfterFunc(handlerTimeout, before.end)
	return nil
}
