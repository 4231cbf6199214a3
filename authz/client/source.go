package client

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/sync/singleflight"
)

// Config configures a [Source]. ClientID, ClientSecret, and one of Issuer, TokenURL and API are
// required.
type Config struct {
	// Issuer is the issuer's identifier, exactly as the issuer writes it. Its endpoints are
	// discovered before the first token is fetched.
	Issuer   string
	TokenURL string // the token endpoint of an issuer without discovery
	// API is a URL of the API, whose metadata names the issuer: see [DiscoverAPI]. The API then
	// determines where ClientSecret is sent; set Issuer as well to require that issuer. Resource
	// and Scopes default to those of the metadata.
	API string

	ClientID, ClientSecret string

	Audience string   // identifier of the API, if the issuer requires one
	Resource string   // the same as a URL, for issuers that support RFC 8707
	Scopes   []string // empty: the issuer's default (RFC 6749 §3.3)
	// ScopePrefix is prepended to each of Scopes: https://api.example/ makes
	// https://api.example/read:messages of read:messages.
	ScopePrefix string

	// DPoP requests tokens that are bound to a key (RFC 9449), which New generates. A bearer token
	// in response is an error.
	DPoP bool

	// MaxRetryAfter is the longest Retry-After of a 503 after which a request is sent once more.
	// Only safe methods are retried (RFC 9110 §9.2.1). Default: no retries.
	MaxRetryAfter time.Duration

	HTTPClient *http.Client     // default http.DefaultClient
	Now        func() time.Time // default time.Now
}

// Source fetches access tokens and keeps each until shortly before it expires. It fetches one at a
// time, however many callers wait for it. It is an [oauth2.TokenSource] and safe for concurrent
// use.
type Source struct {
	config Config
	ctx    context.Context // of all fetches, which several callers may wait for
	prover *prover         // nil without DPoP

	cached    atomic.Pointer[issued]
	flight    singleflight.Group // protects the fields below
	endpoints *Endpoints         // nil until discovered
	resource  string             // of config or the API
	scopes    []string           // of config with their prefix, or of the API
	style     oauth2.AuthStyle   // that the issuer accepts; zero until known
}

// issued is a token and the time when it was received.
type issued struct {
	*oauth2.Token
	at time.Time
}

const (
	fetchTimeout = 10 * time.Second
	// An API that refuses a token fresher than this would refuse the next one too. Fetching one
	// would only load the issuer, which may charge for tokens.
	minRefetchAge = 30 * time.Second
)

// New returns a source, or the joined faults of config. It does no I/O: tokens are fetched on
// demand, with ctx, which must live as long as the source is used.
func New(ctx context.Context, config Config) (*Source, error) {
	if config.HTTPClient == nil {
		config.HTTPClient = http.DefaultClient
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	s := &Source{config: config, ctx: ctx, resource: config.Resource}
	for _, scope := range config.Scopes {
		s.scopes = append(s.scopes, config.ScopePrefix+scope)
	}
	if config.TokenURL != "" {
		s.endpoints = &Endpoints{Token: config.TokenURL}
	}
	err := config.faults()
	if config.DPoP {
		var keyErr error
		s.prover, keyErr = newProver(config.Now)
		err = errors.Join(err, keyErr)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (c Config) faults() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("client: "+format, args...))
	}
	switch {
	case c.Issuer == "" && c.TokenURL == "" && c.API == "":
		fault("Issuer, TokenURL and API are empty: set Issuer, such as " +
			"https://tenant.example/, or API, whose metadata names the issuer")
	case c.TokenURL != "" && c.API != "":
		fault("TokenURL and API are both set: remove TokenURL, because API names the issuer")
	case c.Issuer != "" && c.TokenURL != "":
		fault("Issuer and TokenURL are both set: remove TokenURL, because it is discovered")
	case c.Issuer != "":
		if err := checkIssuer(c.Issuer); err != nil {
			faults = append(faults, err)
		}
	case c.API != "":
		if err := checkConfidential(c.API); err != nil {
			fault("API is %q: %w", redacted(c.API), err)
		}
	default:
		if err := checkConfidential(c.TokenURL); err != nil {
			fault("TokenURL is %q: %w", redacted(c.TokenURL), err)
		}
	}
	if c.ClientID == "" {
		fault("ClientID is empty: set the ID of the client at the issuer")
	}
	if c.ClientSecret == "" {
		fault("ClientSecret is empty: the client credentials grant requires one " +
			"(RFC 6749 §4.4)")
	}
	if u, err := url.Parse(c.Resource); c.Resource != "" &&
		(err != nil || !u.IsAbs() || strings.Contains(c.Resource, "#")) {
		fault(
			"Resource is %q: expected an absolute URI without fragment (RFC 8707 §2)",
			redacted(c.Resource),
		)
	}
	for _, scope := range c.Scopes {
		scope = c.ScopePrefix + scope
		if scope == "" || strings.ContainsFunc(scope, func(r rune) bool {
			return r <= ' ' || r > '~' || r == '"' || r == '\\'
		}) {
			fault("Scopes has %q: expected one scope per element (RFC 6749 §3.3)", scope)
		}
	}
	return errors.Join(faults...)
}

// Scopes converts the constants that `authz scopes` generates from a document.
func Scopes[S ~string](scopes []S) []string {
	all := make([]string, len(scopes))
	for i, scope := range scopes {
		all[i] = string(scope)
	}
	return all
}

// Token returns a valid token. If the issuer refuses, the error is an [*oauth2.RetrieveError]
// without the client's secret.
func (s *Source) Token() (*oauth2.Token, error) {
	got, err := s.token(s.ctx)
	if err != nil {
		return nil, err
	}
	return got.Token, nil
}

// token returns a valid token, waiting until ctx is done. Concurrent callers share one fetch and
// its error.
func (s *Source) token(ctx context.Context) (*issued, error) {
	if got := s.cached.Load(); got != nil && got.Valid() {
		return got, nil
	}
	fetched := s.flight.DoChan("", func() (any, error) {
		if got := s.cached.Load(); got != nil && got.Valid() {
			return got, nil // fetched since the first check
		}
		token, err := s.fetch()
		if err != nil {
			return nil, err
		}
		got := &issued{token, s.config.Now()}
		s.cached.Store(got)
		return got, nil
	})
	select {
	case result := <-fetched:
		if result.Err != nil {
			return nil, result.Err
		}
		return result.Val.(*issued), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("client: waiting for a token: %w", context.Cause(ctx))
	}
}

// forget drops a token that the API refused, and reports whether to fetch another.
func (s *Source) forget(refused *issued) bool {
	if s.config.Now().Sub(refused.at) < minRefetchAge {
		return false
	}
	// unless another caller has replaced it already
	s.cached.CompareAndSwap(refused, nil)
	return true
}

func (s *Source) fetch() (*oauth2.Token, error) {
	if s.endpoints == nil {
		if err := s.discover(); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(s.ctx, fetchTimeout)
	defer cancel()
	// A redirect could send the secret elsewhere (307 and 308 repeat the body).
	caller := withoutRedirects(s.config.HTTPClient)
	if s.prover != nil {
		caller.Transport = &proofTransport{s.prover, baseOf(s.config.HTTPClient)}
	}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, caller)

	token, err := s.authenticate(ctx)
	if err != nil {
		return nil, s.redactSecret(err)
	}
	if want := s.tokenType(); !strings.EqualFold(token.Type(), want) { // RFC 6749 §7.1, RFC 9449 §5
		return nil, fmt.Errorf("client: %s: token_type is %q, expected %s", s.endpoints.Token,
			token.TokenType, want)
	}
	return token, nil
}

// discover finds the token endpoint, and the API's resource and scopes if API is set.
func (s *Source) discover() error {
	issuer := s.config.Issuer
	if s.config.API != "" {
		api, err := DiscoverAPI(s.ctx, s.config.HTTPClient, s.config.API)
		if err != nil {
			return err
		}
		if issuer == "" {
			issuer = api.Issuers[0]
		}
		if !slices.Contains(api.Issuers, issuer) {
			return fmt.Errorf("client: the API at %s accepts tokens of %s, not of %s",
				redacted(s.config.API), strings.Join(api.Issuers, ", "), issuer)
		}
		if s.resource == "" {
			s.resource = api.Resource
		}
		if s.scopes == nil {
			s.scopes = api.Scopes
		}
	}
	found, err := Discover(s.ctx, s.config.HTTPClient, issuer)
	if err == nil {
		s.endpoints = &found
	}
	return err
}

// tokenType is also the scheme of the Authorization header (RFC 6750 §2.1, RFC 9449 §7.1).
func (s *Source) tokenType() string {
	if s.prover != nil {
		return "DPoP"
	}
	return "Bearer"
}

// authenticate fetches a token with the secret in the header, which every issuer should support, or
// in the body, which some issuers require (RFC 6749 §2.3.1). The metadata decides, or else it tries
// both.
func (s *Source) authenticate(ctx context.Context) (*oauth2.Token, error) {
	if s.style != oauth2.AuthStyleAutoDetect {
		return s.requestToken(ctx, s.style)
	}
	styles := []oauth2.AuthStyle{oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams}
	if methods := s.endpoints.TokenAuthMethods; slices.Contains(methods, "client_secret_post") &&
		!slices.Contains(methods, "client_secret_basic") {
		slices.Reverse(styles)
	}
	token, err := s.requestToken(ctx, styles[0])
	used := styles[0]
	if unauthenticated(err) {
		if second, secondErr := s.requestToken(ctx, styles[1]); !unauthenticated(secondErr) {
			token, err, used = second, secondErr, styles[1]
		}
	}
	if err == nil {
		s.style = used
	}
	return token, err
}

// unauthenticated reports whether the issuer rejected the client's credentials (RFC 6749 §5.2).
func unauthenticated(err error) bool {
	refused, ok := errors.AsType[*oauth2.RetrieveError](err)
	return ok && (refused.ErrorCode == "invalid_client" ||
		refused.Response.StatusCode == http.StatusUnauthorized)
}

func (s *Source) requestToken(ctx context.Context, style oauth2.AuthStyle) (*oauth2.Token, error) {
	grant := clientcredentials.Config{
		ClientID: s.config.ClientID, ClientSecret: s.config.ClientSecret,
		TokenURL: s.endpoints.Token, AuthStyle: style, Scopes: s.scopes,
	}
	grant.EndpointParams = url.Values{}
	if s.config.Audience != "" {
		grant.EndpointParams.Set("audience", s.config.Audience)
	}
	if s.resource != "" {
		grant.EndpointParams.Set("resource", s.resource)
	}
	return grant.Token(ctx)
}

// redactSecret removes from an error the request, which contains the secret, and any text of the
// response that repeats it.
func (s *Source) redactSecret(err error) error {
	refused, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok {
		return fmt.Errorf("client: %s: no token: %w", s.endpoints.Token, causeOf(err))
	}
	clean := *refused
	answer := *refused.Response
	answer.Request = nil
	clean.Response = &answer
	secret, id := url.QueryEscape(s.config.ClientSecret), url.QueryEscape(s.config.ClientID)
	basic := base64.StdEncoding.EncodeToString([]byte(id + ":" + secret))
	secrets := strings.NewReplacer(s.config.ClientSecret, "…", secret, "…", basic, "…")
	clean.ErrorCode, clean.ErrorDescription, clean.ErrorURI = secrets.Replace(refused.ErrorCode),
		secrets.Replace(refused.ErrorDescription), secrets.Replace(refused.ErrorURI)
	clean.Body = []byte(secrets.Replace(string(refused.Body)))
	return fmt.Errorf("client: %s refuses: %w", s.endpoints.Token, &clean)
}
