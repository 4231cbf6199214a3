// Package impl is this API: what its operations do, its configuration, and the server that carries it.
package impl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/rs/cors"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/token"
	"github.com/oasgate/oasgate/gen"
	"github.com/oasgate/oasgate/impl/docs"
)

// Every phase of a request has its end. A handler's comes before the answer's, so that the client can be told of it.
// The headers have room for a token larger than any that is accepted, so that it is the gate that refuses it.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 15 * time.Second
	handlerTimeout    = 20 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 2 * time.Minute
	drainTimeout      = 20 * time.Second
	readyTimeout      = 2 * time.Second
	maxHeaderBytes    = 32 << 10
)

// ServerConfig says what a server is made of. The issuers of the Settings and the Handlers have no default.
type ServerConfig struct {
	Settings Settings
	Handlers gen.StrictServerInterface // such as Handlers, with a store
	Replays  token.ReplayStore         // of DPoP proofs; default: in memory
	Logger   *slog.Logger              // default slog.Default()

	// Linger is how long, once it is to stop, the server still takes new requests while /readyz says no, so that load
	// balancers can learn of it: net/http's own drain refuses everybody at once. Default: not at all.
	Linger time.Duration

	// InsecureIssuer is nil but under `dev`: an issuer beside the API that gives tokens to whoever asks. With it the
	// server answers only what is asked of a loopback host, and tells the client exactly why a token is refused.
	InsecureIssuer Issuer

	// InsecureClients is nil but under `dev`: the clients of that issuer which the page at /docs is filled in with.
	InsecureClients *docs.Clients
}

// Issuer is the development issuer, as far as the server knows it.
type Issuer interface {
	http.Handler
	Serves(path string) bool
}

// Server is the API, guarded by its document.
type Server struct {
	http     http.Server
	life     context.Context // what goes on in the background ends with it
	config   ServerConfig
	log      *slog.Logger
	guard    atomic.Pointer[guard]
	reload   sync.Mutex // one at a time
	remoteIP echo.IPExtractor
	issuer   Issuer
	cors     *cors.Cors // nil: off
	linger   time.Duration
	stopping atomic.Bool
}

// New builds the server, or returns what is wrong with the configuration or the document, joined. It does no I/O.
// Keys are fetched on ctx, which must outlive [Server.Serve].
func New(ctx context.Context, config ServerConfig) (*Server, error) {
	if config.Handlers == nil {
		return nil, errors.New("impl: ServerConfig.Handlers is nil: nobody would answer")
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	s := &Server{
		life: ctx, config: config, log: config.Logger,
		remoteIP: remoteIP(config.Settings.TrustedProxies), issuer: config.InsecureIssuer, linger: config.Linger,
	}
	first, err := s.newGuard(config.Settings.Issuers, nil)
	var corsErr error
	if s.cors, corsErr = newCORS(config.Settings.CORSOrigins); corsErr != nil || err != nil {
		return nil, errors.Join(err, corsErr)
	}
	s.enforce(first, config.Settings.Issuers)

	// The way of every request, from the outside in.
	var handler http.Handler = http.HandlerFunc(s.beside)
	for _, wrap := range slices.Backward([]func(http.Handler) http.Handler{
		s.exchanged,     // an id, a time limit, and one line in the log whatever becomes of the request
		s.recovered,     // a panic is a 500
		s.toThisMachine, // under dev: no DNS rebinding
		s.crossOrigin,   // whose pages may call from a browser; preflights end here
	}) {
		handler = wrap(handler)
	}

	s.http = http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(config.Logger.Handler(), slog.LevelWarn),
		// OPTIONS * goes the way of every request too.
		DisableGeneralOptionsHandler: true,
	}
	return s, nil
}

// Plan returns what the document says of who may call what.
func Plan() (*authz.Plan, error) {
	document, err := gen.GetSpec()
	if err != nil {
		return nil, fmt.Errorf("the embedded document does not load: %w: generate it again with `go generate ./...`", err)
	}
	return authz.Compile(document)
}

// Serve serves until ctx ends; then it lingers, takes no new request, and gives those under way some time to end.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	failed := make(chan error, 1)
	go func() { failed <- s.http.Serve(lazyListener{listener}) }()
	go s.guard.Load().verifier.Ready(ctx) // spares the first request the wait; that it fails, the verifier logs, and keeps nobody from starting

	select {
	case err := <-failed:
		return fmt.Errorf("serving on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	s.stopping.Store(true)
	s.log.Info("stopping", "linger", s.linger.String(), "drain", drainTimeout.String())
	time.Sleep(s.linger)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := s.http.Shutdown(drain); err != nil {
		return errors.Join(fmt.Errorf("requests were still under way after %s: %w", drainTimeout, err), s.http.Close())
	}
	return nil
}

// The paths that the server answers beside the API's.
const (
	healthPath = "/healthz"
	readyPath  = "/readyz"
)

// beside answers what is no part of the document: the probes, the metadata, the page that shows it, and under dev what is
// the issuer's. The rest is the API's. It compares paths as they are: http.ServeMux would redirect some.
func (s *Server) beside(w http.ResponseWriter, r *http.Request) {
	guard := s.guard.Load()
	switch {
	case r.URL.Path == healthPath:
		s.status(w, r, nil)
	case r.URL.Path == readyPath:
		s.status(w, r, s.ready)
	case guard.gate.ServesMetadata(r.URL.Path):
		guard.gate.ServeMetadata(w, r)
	case guard.docs != nil && docs.Serves(r.URL.Path):
		guard.docs.ServeHTTP(w, r)
	case s.issuer != nil && s.issuer.Serves(r.URL.Path):
		s.issuer.ServeHTTP(w, r)
	default:
		guard.api.ServeHTTP(w, r)
		if x := exchangeOf(r); x.status == 0 && x.Operation != nil { // net/http would make an empty 200 of it
			s.refuse(w, r, fmt.Errorf("the handler of %s returned neither an answer nor an error", x.Operation.ID))
		}
	}
}

// checkPaths reports operations that beside would keep from being reached.
func (s *Server) checkPaths(gate *authz.Gate) error {
	var faults []error
	for _, o := range gate.Plan().Operations() {
		if o.Path == healthPath || o.Path == readyPath || gate.ServesMetadata(o.Path) || s.config.Settings.Docs && docs.Serves(o.Path) ||
			s.issuer != nil && s.issuer.Serves(o.Path) {
			faults = append(faults, fmt.Errorf("openapi: %s %s: the server answers this path itself: give the operation another one", o.Method, o.Path))
		}
	}
	return errors.Join(faults...)
}

// status answers a probe: 200, or what the check says is wrong.
func (s *Server) status(w http.ResponseWriter, r *http.Request, check func(context.Context) error) {
	if r.Method != http.MethodGet {
		s.refuse(w, r, &authz.Error{Kind: authz.MethodNotAllowed, Allow: []string{http.MethodGet}})
		return
	}
	if check != nil {
		if err := check(r.Context()); err != nil {
			s.refuse(w, r, err)
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write([]byte(`{"status":"ok"}` + "\n"))
}

// ready returns nil while requests with tokens can be answered: keys are had, and the server is not stopping.
func (s *Server) ready(ctx context.Context) error {
	if s.stopping.Load() {
		return authz.StatusError(http.StatusServiceUnavailable, "", errors.New("the server is stopping"))
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := s.guard.Load().verifier.Ready(ctx); err != nil {
		return &authz.Error{Kind: authz.KeysUnavailable, Detail: "The token issuer's keys could not be had yet.", RetryAfter: time.Second, Err: err}
	}
	return nil
}

// toThisMachine guards the development issuer against the browser: a page anywhere can have its own name resolve to
// 127.0.0.1 (DNS rebinding) and then read tokens and answers as its own. It cannot choose the Host that is sent.
func (s *Server) toThisMachine(next http.Handler) http.Handler {
	if s.issuer == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !token.IsLoopback((&url.URL{Host: r.Host}).Hostname()) {
			s.refuse(w, r, authz.StatusError(http.StatusMisdirectedRequest, "", errors.New("under dev only requests to a loopback host are answered"))) // RFC 9110 §15.5.20
			return
		}
		next.ServeHTTP(w, r)
	})
}

// remoteIP returns the peer's address, or, where that is one of our proxies, what X-Forwarded-For says of the client.
func remoteIP(proxies []*net.IPNet) echo.IPExtractor {
	if len(proxies) == 0 {
		return echo.ExtractIPDirect()
	}
	trusted := []echo.TrustOption{echo.TrustLoopback(false), echo.TrustLinkLocal(false), echo.TrustPrivateNet(false)}
	for _, proxy := range proxies {
		trusted = append(trusted, echo.TrustIPRange(proxy))
	}
	return echo.ExtractIPFromXFFHeader(trusted...)
}
