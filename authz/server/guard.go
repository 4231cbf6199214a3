package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/oasgate/oasgate/authz"
	oauthclient "github.com/oasgate/oasgate/authz/client"
	"github.com/oasgate/oasgate/authz/server/docs"
	"github.com/oasgate/oasgate/authz/token"
)

// readyTimeout bounds all that /readyz waits for.
const readyTimeout = 2 * time.Second

// guard is all that the issuers decide: the verifier of tokens, the gate that asks it, and what
// stands behind it. It does not change; [Server.Reload] makes another.
type guard struct {
	*authz.Gate
	verifier *token.Verifier
	api      http.Handler // of the document's operations
	own      endpoints
	end      context.CancelFunc // of the verifier's work in the background
}

// newGuard builds the API around a verifier that begins with the keys of the one before, if any.
func (s *Server) newGuard(issuers []token.Issuer, before *token.Verifier) (_ *guard, err error) {
	ctx, end := context.WithCancel(s.life)
	defer func() {
		if err != nil {
			end()
		}
	}()
	verifier, err := token.NewVerifier(ctx, token.Config{
		Issuers: issuers, Logger: s.config.Logger, Predecessor: before,
		Proofs: token.ProofPolicy{Replays: s.config.Replays, NonceKey: s.config.NonceKey},
	})
	if err != nil {
		return nil, err
	}
	var urls []string
	for _, issuer := range issuers {
		urls = append(urls, issuer.URL)
	}
	config := authz.Config{
		Document: s.config.Document, Verifier: verifier, Logger: s.config.Logger,
		Resource: s.config.Resource, AuthorizationServers: urls,
		ProblemTypeBase: s.config.ProblemTypeBase,
		InsecureExplain: s.config.InsecureIssuer != nil,
	}
	if s.config.Gate != nil {
		s.config.Gate(&config)
	}
	gate, err := authz.New(config)
	if err != nil {
		return nil, err
	}
	page, err := s.newDocs(ctx, gate, issuers)
	if err != nil {
		return nil, err
	}
	g := &guard{Gate: gate, verifier: verifier, end: end}
	g.own = endpoints{
		gate: gate, ready: s.readiness(verifier), docs: page, issuer: s.config.InsecureIssuer,
	}
	api, err := s.config.Routes(gate)
	if err == nil && api == nil {
		err = errors.New("server: Config.Routes returned a nil handler")
	}
	if err := errors.Join(err, g.checkPaths()); err != nil {
		return nil, err
	}
	g.api = api
	return g, nil
}

// checkPaths reports operations that cannot be reached, because the server answers their paths
// itself.
func (g *guard) checkPaths() error {
	var faults []error
	for _, o := range g.Plan().Operations() {
		path := g.BasePath() + o.Path
		if g.ServesMetadata(path) || g.own.handler(path) != nil {
			faults = append(faults, fmt.Errorf("openapi: %s %s: the server answers this path itself: "+
				"give the operation another one", o.Method, o.Path))
		}
	}
	return errors.Join(faults...)
}

// readiness returns the check of /readyz: nil if requests with tokens can be answered.
func (s *Server) readiness(verifier *token.Verifier) func(context.Context) error {
	return func(ctx context.Context) error {
		if s.stopping.Load() {
			err := errors.New("the server is stopping")
			return authz.StatusError(http.StatusServiceUnavailable, "", err)
		}
		ctx, cancel := context.WithTimeout(ctx, readyTimeout)
		defer cancel()
		if err := verifier.Ready(ctx); err != nil {
			const detail = "The token issuer's keys could not be had yet."
			return &authz.Error{Kind: authz.KeysUnavailable, Detail: detail, RetryAfter: time.Second, Err: err}
		}
		if s.config.Ready == nil {
			return nil
		}
		if err := s.config.Ready(ctx); err != nil {
			return &authz.Error{Kind: authz.Unavailable, RetryAfter: time.Second, Err: err}
		}
		return nil
	}
}

// newDocs makes the page at /docs; nil where it is off.
func (s *Server) newDocs(
	ctx context.Context, gate *authz.Gate, issuers []token.Issuer,
) (*docs.Docs, error) {
	if !s.config.Docs {
		return nil, nil
	}
	config := docs.Config{
		Document: s.config.Document, Resource: s.config.Resource, Logger: s.config.Logger,
		Refuse: gate.WriteProblem, InsecureClients: s.config.InsecureClients,
		Discover: func(ctx context.Context, issuer string) (authorize, token string, err error) {
			found, err := oauthclient.Discover(ctx, nil, issuer)
			return found.Authorization, found.Token, err
		},
	}
	for _, issuer := range issuers {
		shown := docs.Issuer{URL: issuer.URL, Audience: issuer.Audiences[0]}
		config.Issuers = append(config.Issuers, shown)
	}
	return docs.New(ctx, config)
}
