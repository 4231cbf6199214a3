// Package server carries an API that its OpenAPI document guards: everything between [http.Server]
// and the handlers. Limits, log, panics, CORS, health, metadata, the page at /docs, and other
// issuers while it runs.
//
//	s, err := server.New(ctx, server.Config{
//		Document: document,
//		Routes: func(g *authz.Gate) (http.Handler, error) {
//			return echov4.Routes(g, func(e *echo.Echo) { gen.RegisterHandlers(e, handlers) })
//		},
//		Issuers: []token.Issuer{{
//			URL: "https://issuer.example/", Audiences: []string{"https://api.example"},
//		}},
//	})
//	if err != nil {
//		return err // every fault of the configuration and of the document
//	}
//	return s.Serve(ctx, listener)
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/server/docs"
	"github.com/oasgate/oasgate/authz/server/internal/lazyconn"
	"github.com/oasgate/oasgate/authz/token"
)

// Every phase of a request ends. Headers may be larger than any accepted token, so that the gate is
// what refuses it. See handlerTimeout, too.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 15 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 2 * time.Minute
	drainTimeout      = 20 * time.Second
	maxHeaderBytes    = 32 << 10
)

// Config is what a [Server] is made of. Document, Routes and Issuers have no default.
type Config struct {
	// Document is the API's, with its references resolved. The server does not change it, except
	// that with Docs it makes references to other files internal ([openapi3.T.InternalizeRefs]).
	Document *openapi3.T
	// Routes returns the handler of the document's operations, guarded by the gate. It must refuse
	// routes that the document does not describe ([authz.Gate.CheckRoutes]). It is called by [New]
	// and by each [Server.Reload], each time with another gate.
	Routes  func(g *authz.Gate) (http.Handler, error)
	Issuers []token.Issuer // whose tokens are accepted
	// Gate, if set, completes the configuration of each gate: hooks, and what is relaxed.
	Gate func(*authz.Config)

	Resource        string            // see [authz.Config]
	ProblemTypeBase string            // see [authz.Config]
	Replays         token.ReplayStore // of DPoP proofs; nil: in memory
	NonceKey        []byte            // of DPoP nonces; nil: proofs need none
	CORSOrigins     []string          // whose pages may call, see [CheckOrigin]; none: CORS is off
	Docs            bool              // whether /docs is served
	TrustedProxies  []netip.Prefix    // whose X-Forwarded-For names the client in the log
	Logger          *slog.Logger      // default slog.Default()

	// Ready returns why the server cannot answer now, such as that its database is not reachable:
	// then /readyz is 503. The error is for the log alone.
	Ready func(context.Context) error

	// Linger is how long the server still takes new requests once it is to stop, while /readyz says
	// no, so that load balancers can take note: net/http's own drain refuses everybody at once.
	Linger time.Duration

	// InsecureIssuer gives tokens to whoever asks. With it, the server answers requests to a
	// loopback host only, and tells clients exactly why a token is refused. For development only.
	InsecureIssuer Issuer
	// InsecureClients are clients of that issuer, for the page at /docs to fill in.
	InsecureClients *docs.Clients
}

// Server is an API, guarded by its document. It is safe for concurrent use.
type Server struct {
	http     http.Server
	life     context.Context // of work in the background
	config   Config
	ids      requestIDs
	log      requestLog
	cors     *crossOrigin // nil: off
	guard    atomic.Pointer[guard]
	reload   sync.Mutex // one at a time
	stopping atomic.Bool
}

// New builds the server, or returns all faults of the configuration and the document, joined. It
// does no I/O. Keys are fetched on ctx, which must outlive [Server.Serve].
func New(ctx context.Context, config Config) (*Server, error) {
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	s := &Server{
		life: ctx, config: config, ids: newRequestIDs(),
		log: requestLog{config.Logger.Handler(), config.TrustedProxies},
	}
	faults := checkOrigins(config.CORSOrigins)
	if config.Document == nil {
		faults = append(faults, errors.New("server: Config.Document is nil"))
	}
	if config.Routes == nil {
		faults = append(faults, errors.New("server: Config.Routes is nil"))
	}
	var first *guard
	if config.Document != nil && config.Routes != nil {
		if config.Docs {
			config.Document.InternalizeRefs(ctx, nil)
		}
		var err error
		if first, err = s.newGuard(config.Issuers, nil); err != nil {
			faults = append(faults, err)
		}
	}
	if faults != nil {
		if first != nil {
			first.end()
		}
		return nil, errors.Join(faults...)
	}
	s.cors = newCORS(config.Document, config.CORSOrigins)
	s.enforce(first, config.Issuers)
	s.http = http.Server{
		Handler:           s,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(config.Logger.Handler(), slog.LevelWarn),
		// So that ServeHTTP gets OPTIONS * too.
		DisableGeneralOptionsHandler: true,
	}
	return s, nil
}

// ServeHTTP serves one request: this is the order of things, each in a file of its own.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := s.ids.begin(w, r)  // an ID and a time limit
	defer s.log.write(x, r) // one line in the log, in any case
	r = r.WithContext(x)
	guard := s.guard.Load()              // all that the issuers decide
	defer recoverPanic(x, r, guard.Gate) // a panic is a 500

	own := guard.own.handler(r.URL.Path)
	switch {
	case !s.answersHost(r.Host): // against DNS rebinding, with a development issuer
		guard.WriteProblem(x, r, errNotLoopback)
	case guard.ServesMetadata(r.URL.Path): // RFC 9728, readable for all origins
		guard.ServeMetadata(x, r)
	case s.cors.answers(x, r): // a preflight
	case own != nil: // health, /docs, the development issuer
		own.ServeHTTP(x, r)
	default: // the API: router, gate, handler
		guard.api.ServeHTTP(x, r)
		if x.status == 0 && x.Operation != nil { // net/http would send an empty 200
			guard.WriteProblem(x, r, fmt.Errorf(
				"the handler of %s returned neither an answer nor an error", x.Operation.ID))
		}
	}
	x.end()
}

// errNotLoopback is RFC 9110 §15.5.20.
var errNotLoopback = authz.StatusError(http.StatusMisdirectedRequest, "",
	errors.New("with a development issuer, only requests to a loopback host are answered"))

// answersHost guards a development issuer against the browser: any page can have its own name
// resolve to 127.0.0.1 (DNS rebinding), and then read tokens and answers as of its own origin. It
// cannot choose the Host that the browser sends.
func (s *Server) answersHost(host string) bool {
	return s.config.InsecureIssuer == nil || token.IsLoopback((&url.URL{Host: host}).Hostname())
}

// Serve serves until ctx ends. Then it lingers, takes no new requests, and gives those that are
// being served some time to end.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	failed := make(chan error, 1)
	go func() { failed <- s.http.Serve(lazyconn.Listener{Listener: listener}) }()
	// Fetches the keys ahead of the first request. The verifier logs failures; the server starts
	// anyway.
	go s.guard.Load().verifier.Ready(ctx)

	select {
	case err := <-failed:
		return fmt.Errorf("serving on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	s.stopping.Store(true)
	s.config.Logger.Info("stopping",
		"linger", s.config.Linger.String(), "drain", drainTimeout.String())
	time.Sleep(s.config.Linger)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := s.http.Shutdown(drain); err != nil {
		err = fmt.Errorf("requests were still being served after %s: %w", drainTimeout, err)
		return errors.Join(err, s.http.Close())
	}
	return nil
}

// Reload replaces the issuers, or returns all faults of the new ones, joined, and changes nothing.
// Requests that are being served go on with the issuers they began with; later ones meet the new
// issuers, and no cached verdict of the old ones.
//
// Reload waits for nobody. Issuers that stay keep their fetched keys, also while they are down. New
// ones answer their first requests once their keys are fetched; an issuer that is not reachable
// concerns its own tokens only.
func (s *Server) Reload(issuers []token.Issuer) error {
	s.reload.Lock()
	defer s.reload.Unlock()
	before := s.guard.Load()
	next, err := s.newGuard(issuers, before.verifier)
	if err != nil {
		return err
	}
	s.enforce(next, issuers)
	go next.verifier.Ready(s.life) // ahead of the first request
	// A request that is being served may wait for keys until its time is over.
	time.AfterFunc(handlerTimeout, before.end)
	return nil
}

func (s *Server) enforce(g *guard, issuers []token.Issuer) {
	s.guard.Store(g)
	for _, issuer := range issuers {
		s.config.Logger.Info("accepting tokens", "issuer", issuer.URL, "audience", issuer.Audiences)
	}
}
