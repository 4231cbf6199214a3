// Package server serves an API that is guarded by its OpenAPI document. It is everything between
// [http.Server] and the handlers: time limits, the log, panics, CORS, health checks, metadata, the
// documentation at /docs, and replacing the issuers at run time.
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
	"crypto/tls"
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

// Limits of a request. The limit of the headers is larger than that of a token, so that the gate
// refuses large tokens.
const (
	requestTimeout    = 20 * time.Second
	writeGrace        = 10 * time.Second
	readHeaderTimeout = 5 * time.Second
	idleTimeout       = 2 * time.Minute
	drainTimeout      = 20 * time.Second
	maxHeaderBytes    = 32 << 10
)

// Config configures a [Server]. Document and Routes are required, and Issuers if the document takes
// access tokens.
type Config struct {
	// Document is the document of the API, with its references resolved. The server does not change
	// it, except that with Docs it internalizes references to other files
	// ([openapi3.T.InternalizeRefs]).
	Document *openapi3.T
	// Source is the text of the document, YAML or JSON. /docs shows the document in its order.
	// Default: paths and members are sorted by name.
	Source []byte
	// Routes returns the handler of the document's operations, guarded by the gate. It must return
	// an error for routes that the document does not describe ([authz.Gate.CheckRoutes]). [New] and
	// each [Server.Reload] call it, each time with a new gate.
	Routes  func(g *authz.Gate) (http.Handler, error)
	Issuers []token.Issuer // issuers whose tokens are accepted
	// Gate, if set, completes the configuration of each gate, for example with hooks.
	Gate func(*authz.Config)

	Resource        string            // see [authz.Config]
	ProblemTypeBase string            // see [authz.Config]
	Replays         token.ReplayStore // of DPoP proofs; default: in memory
	RateCounter     authz.RateCounter // see [authz.Config]
	RefuseUncounted bool              // see [authz.Config]
	ProofLimit      int               // see [token.ProofPolicy]
	NonceKey        []byte            // of DPoP nonces; nil: proofs need no nonce
	CORSOrigins     []string          // see [CheckOrigin]; empty: CORS is off
	Docs            bool              // serve the documentation at /docs
	TrustedProxies  []netip.Prefix    // proxies whose X-Forwarded-For is logged
	// TLS, if set, makes Serve use TLS, and HTTP/2 with clients that support it. GetConfigForClient
	// can replace certificates while the server runs; the NextProtos of its result must be h2 and
	// http/1.1.
	TLS *tls.Config
	// ClientCertificates says where the certificate of a client is. Default: the TLS connection.
	ClientCertificates authz.ClientCertificates
	Logger             *slog.Logger // default slog.Default()
	// Now is the clock for tokens, keys and rate limits. Default time.Now. If it is set back,
	// tokens are refused until the time when they were issued.
	Now func() time.Time

	// Telemetry exports what the server does. Default: nothing is exported.
	Telemetry Telemetry
	// Audit, if set, gets the decision about each request.
	Audit *Audit
	// LostLines returns how many lines of the log were lost: see [Lines].
	LostLines func() uint64
	// Pools returns the state of the program's pools of connections, by name, for Telemetry.
	Pools func() map[string]Pool

	// RequestTimeout is the maximum time of a request. After it, the context of the request is
	// cancelled, which handlers must respect. The body must arrive within three quarters of it.
	// x-authz-timeout of an operation replaces it. Default 20 s; [authz.NoTimeout]: none.
	RequestTimeout time.Duration
	// WriteTimeout is the maximum time from the headers of a request to the end of its response. It
	// must be longer than RequestTimeout, and is scaled with the timeouts of operations. Slower
	// clients are disconnected. Default: RequestTimeout and 10 s; [authz.NoTimeout]: none.
	WriteTimeout time.Duration
	// Progress replaces both timeouts for responses that stream: text/event-stream, everything that
	// is not text, JSON, XML or YAML, and connections that a handler hijacks. They end when the
	// token expires, unless the operation has x-authz-outlives-token, and after x-authz-timeout if
	// the operation has it. Default 30 KiB in 30 s.
	Progress Progress

	// MaxActive is the maximum number of concurrent requests of operations. The same number can
	// wait, for up to 1 s each. Further requests get 503 with Retry-After. Streams that have begun
	// are not counted, nor are probes, documentation and metadata. Default: 4 for each connection
	// of Pools, and at least 32 for each processor; without Pools, 256 for each processor. Requests
	// are also refused while goroutines wait too long for a processor, whatever MaxActive is.
	// [Unlimited] removes both limits.
	MaxActive int

	// MaxConnections is the maximum number of open connections. Further ones wait. Default: the
	// number of files that the process can open, less 128. [Unlimited]: no limit.
	MaxConnections int

	// Ready returns an error if the server cannot answer requests now, for example because its
	// database is unreachable. Then the status of /readyz is 503. The error is logged only.
	Ready func(context.Context) error

	// Linger is how long the server still accepts requests after the context of Serve has ended.
	// Meanwhile the status of /readyz is 503, so that load balancers stop sending requests.
	Linger time.Duration

	// InsecureIssuer issues tokens to everyone, for development only. With it, the server only
	// answers requests to a loopback host, and tells clients exactly why it refuses a token.
	InsecureIssuer Issuer
	// InsecureClients are clients of that issuer, which the page at /docs fills in.
	InsecureClients *docs.Clients
}

// Server serves an API that is guarded by its document. It is safe for concurrent use.
type Server struct {
	http        http.Server
	client      *http.Client    // of the verifier
	active      atomic.Int64    // requests
	ctx         context.Context // of background work
	config      Config
	ids         requestIDs
	limits      limits
	overload    *overload
	connections *connections
	drain       context.CancelFunc // ends the streams
	log         requestLog
	cors        *crossOrigin // nil: off
	current     atomic.Pointer[snapshot]
	reload      sync.Mutex // held by Reload
	stopping    atomic.Bool
}

// New returns a server, or all faults of the configuration and the document, joined. It does no
// I/O. Keys are fetched with ctx, which must not end before [Server.Serve] returns.
func New(ctx context.Context, config Config) (*Server, error) {
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	s := &Server{
		ctx: ctx, config: config, ids: newRequestIDs(),
		log: newRequestLog(config),
	}
	if t := config.Telemetry; t != nil {
		s.client = &http.Client{Transport: t.Transport(http.DefaultTransport)}
		if config.Replays != nil {
			s.config.Replays = t.Replays(config.Replays)
		}
	}
	var faults []error
	s.limits, faults = readLimits(config)
	s.limits.draining, s.drain = context.WithCancel(context.Background())
	var overloadErr error
	if s.overload, overloadErr = newOverload(config); overloadErr != nil {
		faults = append(faults, overloadErr)
	}
	faults = append(faults, checkOrigins(config.CORSOrigins)...)
	if config.Document == nil {
		faults = append(faults, errors.New("server: Config.Document is nil"))
	}
	if config.Routes == nil {
		faults = append(faults, errors.New("server: Config.Routes is nil"))
	}
	var c *snapshot
	if config.Document != nil && config.Routes != nil {
		if config.Docs {
			config.Document.InternalizeRefs(ctx, nil)
		}
		var err error
		if c, err = s.newSnapshot(config.Issuers, nil); err != nil {
			faults = append(faults, err)
		}
	}
	if faults != nil {
		if c != nil {
			c.cancel()
		}
		return nil, errors.Join(faults...)
	}
	s.cors = newCORS(config.Document, config.CORSOrigins)
	s.use(c, config.Issuers)
	s.newHTTP()
	if config.Telemetry != nil {
		if err := config.Telemetry.Watch(s.Stats); err != nil {
			c.cancel()
			return nil, err
		}
	}
	return s, nil
}

// newHTTP sets the net/http server and its limits.
func (s *Server) newHTTP() {
	s.http = http.Server{
		Handler:           s,
		TLSConfig:         s.config.TLS,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		ConnContext:       withConn,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2:             &http.HTTP2Config{WriteByteTimeout: s.limits.progress.Per},
		ErrorLog:          slog.NewLogLogger(s.config.Logger.Handler(), slog.LevelWarn),
		// ServeHTTP answers OPTIONS *, too.
		DisableGeneralOptionsHandler: true,
	}
	connections := s.config.MaxConnections
	if connections == 0 {
		connections = defaultConnections()
	}
	s.connections = newConnections(&s.http, connections, func() {
		s.config.Logger.Warn("no further connections are accepted until others are closed",
			"limit", connections)
	})
	s.http.ConnState = s.connections.changed
	if limit := s.limits.request; limit != authz.NoTimeout {
		s.http.ReadTimeout = limit * 3 / 4
		if !s.limits.endless {
			s.http.WriteTimeout = limit + s.limits.grace
		}
	}
}

// ServeHTTP serves one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.config.ClientCertificates.Strip(r)
	if s.config.Telemetry != nil {
		r = s.config.Telemetry.Begin(r)
	}
	s.active.Add(1)
	x := s.begin(w, r)
	defer s.end(x, r)
	r = r.WithContext(x)
	current := s.current.Load()
	defer recoverPanic(x, r, current.Gate)

	own := current.own.handler(r.URL.Path)
	switch {
	case !s.acceptsHost(r.Host):
		current.WriteProblem(x, r, errNotLoopback)
	case current.ServesMetadata(r.URL.Path): // RFC 9728, with CORS headers of its own
		current.ServeMetadata(x, r)
	case s.cors.handle(x, r): // a preflight
	case own != nil:
		own.ServeHTTP(x, r)
	default: // router, gate, handler
		s.serveAPI(x, r, current)
		if x.status == 0 && x.Operation != nil { // net/http would send 200
			current.WriteProblem(x, r, fmt.Errorf(
				"the handler of %s returned neither a response nor an error", x.Operation.ID))
		}
	}
	x.end()
}

// serveAPI handles a request of an operation, or refuses it if there are too many.
func (s *Server) serveAPI(x *exchange, r *http.Request, c *snapshot) {
	if !s.overload.enter(r.Context(), x.start) {
		c.WriteProblem(x, r, errOverloaded)
		return
	}
	if s.overload.active != nil {
		x.place.overload, x.place.held = s.overload, true
		defer x.place.leave()
		if r.Body != nil && r.Body != http.NoBody {
			x.body = waitingBody{r.Body, &x.place, r.Context()}
			r.Body = &x.body
		}
	}
	c.api.ServeHTTP(x, r)
}

// end logs a request and reports it to the telemetry.
func (s *Server) end(x *exchange, r *http.Request) {
	s.active.Add(-1)
	x.deadline.Release()
	if x.stream != nil {
		x.stream.done()
	}
	took := time.Since(x.start)
	s.log.write(x, r, took)
	if s.config.Telemetry != nil {
		s.config.Telemetry.End(r.Context(), s.event(x, r, took))
	}
}

// errNotLoopback is a misdirected request (RFC 9110 §15.5.20).
var errNotLoopback = authz.StatusError(http.StatusMisdirectedRequest, "",
	errors.New("with a development issuer, the server only answers requests to a loopback host"))

// acceptsHost protects a development issuer from DNS rebinding: a page whose host name resolves to
// 127.0.0.1 could read tokens and responses as its own origin. The Host that the browser sends is
// that host name.
func (s *Server) acceptsHost(host string) bool {
	return s.config.InsecureIssuer == nil || token.IsLoopback((&url.URL{Host: host}).Hostname())
}

// Serve serves requests until ctx ends. Then it lingers (see [Config]), stops accepting requests,
// and waits up to 20 seconds for active requests to end.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	failed := make(chan error, 1)
	limited := s.connections.listener(lazyconn.Listener{Listener: listener})
	go func() {
		if s.config.TLS != nil {
			failed <- s.http.ServeTLS(limited, "", "")
		} else {
			failed <- s.http.Serve(limited)
		}
	}()
	// Fetch the keys before the first request. The verifier logs failures.
	go s.current.Load().fetchKeys(ctx)

	select {
	case err := <-failed:
		return fmt.Errorf("serving on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	s.stopping.Store(true)
	s.config.Logger.Info("stopping",
		"linger", s.config.Linger.String(), "drain", drainTimeout.String())
	time.Sleep(s.config.Linger)
	s.drain()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := s.http.Shutdown(drain); err != nil {
		err = fmt.Errorf("requests were still active after %s: %w", drainTimeout, err)
		return errors.Join(err, s.http.Close())
	}
	return nil
}

// Reload replaces the issuers. If the new ones are faulty it returns all faults, joined, and
// changes nothing. Active requests continue with the old issuers. Later requests use the new
// issuers, and no cached results of the old ones.
//
// Reload does not wait for keys. Issuers that stay keep their keys, even if they are unreachable
// now. The first requests with tokens of a new issuer wait until its keys are fetched; an
// unreachable issuer only affects its own tokens.
func (s *Server) Reload(issuers []token.Issuer) error {
	s.reload.Lock()
	defer s.reload.Unlock()
	previous := s.current.Load()
	next, err := s.newSnapshot(issuers, previous.verifier)
	if err != nil {
		return err
	}
	s.use(next, issuers)
	go next.fetchKeys(s.ctx)
	// Active requests can wait for the keys of the old issuers until their time limit.
	time.AfterFunc(max(requestTimeout, s.limits.request), previous.cancel)
	return nil
}

// use replaces the current snapshot.
func (s *Server) use(c *snapshot, issuers []token.Issuer) {
	s.current.Store(c)
	for _, issuer := range issuers {
		s.config.Logger.Info("accepting tokens", "issuer", issuer.URL, "audience", issuer.Audiences)
	}
}
