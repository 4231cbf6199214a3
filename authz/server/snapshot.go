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

// readyTimeout limits the checks of /readyz.
const readyTimeout = 2 * time.Second

// snapshot is everything that depends on the issuers: the verifier of tokens, the gate, and the
// handlers behind it. It is immutable; [Server.Reload] creates a new one.
type snapshot struct {
	*authz.Gate
	verifier *token.Verifier // nil: the document takes no access tokens
	api      http.Handler    // of the document's operations
	own      endpoints
	cancel   context.CancelFunc // stops the verifier's background work
}

// newSnapshot returns a snapshot whose verifier starts with the keys of the previous one, which can
// be nil.
func (s *Server) newSnapshot(
	issuers []token.Issuer, previous *token.Verifier,
) (_ *snapshot, err error) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer func() {
		if err != nil {
			cancel()
		}
	}()
	verifier, err := s.newVerifier(ctx, issuers, previous)
	if err != nil {
		return nil, err
	}
	gate, err := authz.New(s.gateConfig(issuers, verifier))
	if err != nil {
		return nil, err
	}
	page, err := s.newDocs(ctx, gate, issuers)
	if err != nil {
		return nil, err
	}
	c := &snapshot{Gate: gate, verifier: verifier, cancel: cancel}
	c.own = endpoints{
		gate: gate, ready: s.readiness(c), docs: page, beside: besideDocs(gate),
		issuer: s.config.InsecureIssuer,
	}
	api, err := s.config.Routes(gate)
	if err == nil && api == nil {
		err = errors.New("server: Config.Routes returned a nil handler")
	}
	if err := errors.Join(err, c.checkPaths()); err != nil {
		return nil, err
	}
	c.api = api
	return c, nil
}

// newVerifier returns the verifier of the issuers, or nil if there are none.
func (s *Server) newVerifier(
	ctx context.Context, issuers []token.Issuer, previous *token.Verifier,
) (*token.Verifier, error) {
	if len(issuers) == 0 {
		return nil, nil
	}
	return token.NewVerifier(ctx, token.Config{
		Issuers: issuers, Logger: s.config.Logger, Predecessor: previous,
		HTTPClient: s.client, Now: s.config.Now,
		Proofs: token.ProofPolicy{
			Replays: s.config.Replays, Limit: s.config.ProofLimit, NonceKey: s.config.NonceKey,
		},
	})
}

// gateConfig returns the configuration of the gate.
func (s *Server) gateConfig(issuers []token.Issuer, verifier *token.Verifier) authz.Config {
	var urls []string
	for _, issuer := range issuers {
		urls = append(urls, issuer.URL)
	}
	config := authz.Config{
		Document: s.config.Document, Logger: s.config.Logger, Now: s.config.Now,
		Resource: s.config.Resource, AuthorizationServers: urls,
		ProblemTypeBase:    s.config.ProblemTypeBase,
		InsecureExplain:    s.config.InsecureIssuer != nil,
		ClientCertificates: s.config.ClientCertificates,
		RateCounter:        s.config.RateCounter,
		RefuseUncounted:    s.config.RefuseUncounted,
		ClientAddress: func(r *http.Request) string {
			return remoteIP(r, s.config.TrustedProxies)
		},
	}
	if verifier != nil { // not a nil *Verifier, which would not be nil
		config.Verifier = verifier
	}
	if s.config.Gate != nil {
		s.config.Gate(&config)
	}
	if s.config.Audit != nil {
		config.OnDecision = s.config.Audit.before(config.OnDecision)
	}
	return config
}

// fetchKeys fetches the keys of all issuers, before the first request needs them.
func (c *snapshot) fetchKeys(ctx context.Context) error {
	if c.verifier == nil {
		return nil
	}
	return c.verifier.Ready(ctx)
}

// checkPaths returns an error if the paths of operations are those of the server itself.
func (c *snapshot) checkPaths() error {
	var faults []error
	for _, o := range c.Plan().Operations() {
		path := c.BasePath() + o.Path
		if c.ServesMetadata(path) || c.own.handler(path) != nil {
			faults = append(faults, fmt.Errorf("openapi: %s %s: the server uses this path itself: "+
				"change the path of the operation", o.Method, o.Path))
		}
	}
	return errors.Join(faults...)
}

// readiness returns the check of /readyz.
func (s *Server) readiness(c *snapshot) func(context.Context) error {
	return func(ctx context.Context) error {
		if s.stopping.Load() {
			err := errors.New("the server is stopping")
			return authz.StatusError(http.StatusServiceUnavailable, "", err)
		}
		ctx, cancel := context.WithTimeout(ctx, readyTimeout)
		defer cancel()
		if err := c.fetchKeys(ctx); err != nil {
			return &authz.Error{
				Kind:       authz.KeysUnavailable,
				Detail:     "The keys of the token issuer are not available yet.",
				RetryAfter: time.Second,
				Err:        err,
			}
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

// newDocs returns the documentation at /docs, or nil if it is off.
func (s *Server) newDocs(
	ctx context.Context, gate *authz.Gate, issuers []token.Issuer,
) (*docs.Docs, error) {
	if !s.config.Docs {
		return nil, nil
	}
	config := docs.Config{
		Document: s.config.Document, Source: s.config.Source,
		Resource: s.config.Resource, Logger: s.config.Logger,
		BasePath: gate.PublicPath(), Plan: gate.Plan(),
		Refuse: gate.WriteProblem, InsecureClients: s.config.InsecureClients,
		Discover: func(ctx context.Context, issuer string) (authorize, token string, err error) {
			found, err := oauthclient.Discover(ctx, nil, issuer)
			return found.Authorization, found.Token, err
		},
	}
	config.ScopesToRequest = func(url string, scopes []string) []string {
		for _, issuer := range issuers {
			if issuer.URL == url {
				return issuer.ScopesToRequest(scopes)
			}
		}
		return scopes
	}
	for _, issuer := range issuers {
		shown := docs.Issuer{
			URL: issuer.URL, Audience: issuer.Audiences[0],
			DPoP: issuer.DPoP == token.DPoPRequired,
		}
		config.Issuers = append(config.Issuers, shown)
	}
	return docs.New(ctx, config)
}
