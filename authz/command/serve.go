package command

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/server"
)

type serveCommand struct {
	Config  config        `embed:""`
	Policy  policyConfig  `embed:""`
	Program kong.Plugins  `embed:""` // the flags of App.Open
	Operate operateConfig `embed:""`
	Limits  limitsConfig  `embed:""`
	Log     logConfig     `embed:""`
	Check   bool          `help:"Print the configuration and check it: the document, the keys of the issuers, and what the program depends on. Then exit, with code 0 if serve would be ready."`
}

// linger gives load balancers time to notice that the server is no longer ready.
const linger = 3 * time.Second

// serving is the validated configuration of serve.
type serving struct {
	document     *openapi3.T
	policy       *policy
	settings     settings
	operation    operation
	log          *slog.Logger
	level        *slog.LevelVar
	certificates atomic.Pointer[tls.Config]
}

// serve runs the API with the issuers of the configuration.
func (p *program) serve(
	ctx context.Context, c *serveCommand, effective map[string]string,
) error {
	reloads := make(chan os.Signal, 1)
	signal.Notify(reloads, syscall.SIGHUP)
	defer signal.Stop(reloads)
	// A reader of the log that ends must not end the process: see package os/signal.
	pipes := make(chan os.Signal, 1)
	signal.Notify(pipes, syscall.SIGPIPE)
	defer signal.Stop(pipes)
	log, level, lines, logErr := c.Limits.logger(p.prefix(), c.Log, p.stderr)
	defer func() { _ = lines.Close() }()
	s, err := p.configure(c, logErr)
	if err != nil {
		return err
	}
	s.log, s.level = log, level
	p.unknownVariables(log)
	if c.Check {
		return p.checkServe(ctx, effective, s.document, s.policy, s.settings)
	}
	if s.operation, err = p.openOperation(c.Operate, log); err != nil {
		return err
	}
	defer s.operation.close()
	bind := func() (net.Listener, error) {
		listener, err := listen(s.settings.addr)
		if err != nil {
			return nil, listenError(p.env.key("ADDR"), s.settings.addr, err)
		}
		return listener, nil
	}
	config := s.settings.server
	config.Document, config.Logger, config.Linger = s.document, log, linger
	config.Audit, config.LostLines = s.operation.audit, lines.Lost
	if s.settings.tls != nil {
		config.TLS = reloadable(s.certificates.Load)
	}
	return p.run(ctx, launch{
		listen: bind, opener: p.Open, policy: s.policy, config: config,
		metrics: s.operation.admin != nil,
	}, func(life context.Context, api *server.Server, service *Service) {
		if s.operation.admin != nil {
			log.Info("serving metrics and health", "addr", s.operation.admin.Addr().String())
			go s.serveAdmin(life, api, service, effective)
		}
		go p.reloadOn(ctx, reloads, c, s, api)
	})
}

// configure reads the configuration. Its error joins all faults with logErr.
func (p *program) configure(c *serveCommand, logErr error) (*serving, error) {
	var s serving
	var policyErr, err error
	if s.policy, policyErr = c.Policy.policy(p.prefix()); policyErr == nil {
		if s.document, err = s.policy.document(p.Document); err != nil {
			return nil, err
		}
		plan, err := s.policy.plan(s.document)
		c.Config.withoutTokens = err == nil && !plan.TakesTokens()
	}
	s.settings, err = c.Config.settings(p.prefix(), p.Dev != nil)
	limitsErr := c.Limits.apply(p.prefix(), &s.settings.server)
	operateErr := c.Operate.check(p.prefix())
	if err := errors.Join(err, policyErr, check(p.Open), operateErr, limitsErr,
		logErr); err != nil {
		return nil, &configurationError{err}
	}
	s.certificates.Store(s.settings.tls)
	return &s, nil
}

// serveAdmin serves metrics and health until life ends.
func (s *serving) serveAdmin(
	life context.Context, api *server.Server, service *Service, effective map[string]string,
) {
	components := maps.Clone(service.Components)
	if s.settings.tls != nil {
		if components == nil {
			components = map[string]func(context.Context) error{}
		}
		components["certificate"] = checkCertificate(s.certificates.Load)
	}
	err := api.ServeAdmin(life, s.operation.admin, server.AdminConfig{
		Components: components, Level: s.level, Settings: effective,
	})
	if err != nil {
		s.log.Error("the admin listener failed", "cause", err.Error())
	}
}

// reloadOn reloads the files of the configuration at each signal, until ctx ends.
func (p *program) reloadOn(
	ctx context.Context, signals <-chan os.Signal, c *serveCommand, s *serving, api *server.Server,
) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
			if !c.reloadable() {
				s.log.Warn("SIGHUP is ignored: there is no file of issuers, credentials or " +
					"certificates to read again")
				continue
			}
			if err := p.reload(c, s, api); err != nil {
				s.log.Error("reload failed: the issuers, certificates and credentials are "+
					"unchanged", "faults", strings.Split(err.Error(), "\n"))
			}
		}
	}
}

// reloadable reports whether there is a file that SIGHUP reads again.
func (c *serveCommand) reloadable() bool {
	return c.Config.File != "" || c.Policy.Credentials != "" || c.Config.TLS.Cert != ""
}

const unixPrefix = "unix:"

func listen(addr string) (net.Listener, error) {
	if path, unix := strings.CutPrefix(addr, unixPrefix); unix {
		return net.Listen("unix", path)
	}
	return net.Listen("tcp", addr)
}

// reload reads the files of issuers, credentials and certificates again. It returns all faults, and
// then the server keeps what it has.
func (p *program) reload(c *serveCommand, s *serving, api *server.Server) error {
	settings, err := c.Config.settings(p.prefix(), p.Dev != nil)
	credentials, credentialsErr := c.Policy.readCredentials(p.prefix())
	if err := errors.Join(err, credentialsErr); err != nil {
		return err
	}
	before := s.policy.credentials.Swap(&credentials)
	if err := api.Reload(settings.server.Issuers); err != nil {
		s.policy.credentials.Store(before)
		return err
	}
	s.certificates.Store(settings.tls)
	return nil
}

// launch is what [program.run] runs.
type launch struct {
	listen  func() (net.Listener, error) // called once the service is open
	opener  Opener
	policy  *policy
	config  server.Config
	metrics bool // the admin listener shows metrics
}

// run opens the service and serves it until ctx ends and the last request has ended. Keys are
// fetched and the service stays open until then. The function started is called once everything is
// ready, before the first request. Its context ends with run.
func (p *program) run(
	ctx context.Context, l launch, started func(context.Context, *server.Server, *Service),
) (err error) {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	config := l.config
	telemetry, shutdown, err := p.openTelemetry(ctx, config.Logger, l.metrics)
	if err != nil {
		return err
	}
	defer shutdown()
	service, err := l.opener.Open(ctx, config.Logger)
	if err != nil {
		return err
	}
	if service.Close != nil {
		defer func() { err = errors.Join(err, service.Close()) }()
	}
	config.Gate = chain(service.Gate, l.policy.gate, config.Gate)
	config.Routes, config.Ready, config.Replays = service.Routes, service.Ready, service.Replays
	config.RateCounter = service.RateCounter
	config.Telemetry, config.Pools = telemetry, service.Pools
	config.RequestTimeout = l.policy.requestTimeout
	config.WriteTimeout = l.policy.writeTimeout
	config.ProblemTypeBase, config.Source = p.ProblemTypeBase, p.Source
	s, err := server.New(life, config)
	if err != nil {
		return err
	}
	listener, err := l.listen()
	if err != nil {
		return err
	}
	debug.FreeOSMemory() // of the documents and schemas that only the start needed
	config.Logger.Info("serving", "addr", listener.Addr().String())
	started(life, s, service)
	return s.Serve(ctx, listener)
}

// listenError describes why the server cannot listen on an address.
func listenError(setting, addr string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is %q: %w: stop what listens there, or choose another address with "+
			"--addr", setting, addr, err)
	}
	return fmt.Errorf("%s is %q: %w", setting, addr, err)
}

// chain returns a function that calls all functions in order. Some can be nil.
func chain(all ...func(*authz.Config)) func(*authz.Config) {
	return func(c *authz.Config) {
		for _, f := range all {
			if f != nil {
				f(c)
			}
		}
	}
}

// responses returns a function that makes a gate compare responses with the document.
func (f *faults) responses(key, value string) func(*authz.Config) {
	modes := map[string]authz.Responses{
		"off": authz.IgnoreResponses, "log": authz.LogResponses, "fail": authz.FailResponses,
	}
	mode, ok := modes[value]
	if !ok {
		f.add(key, value, "off, log or fail")
	}
	return func(c *authz.Config) { c.Responses = mode }
}

// report returns a function that makes a gate log refusals without enforcing them, or nil for
// "off".
func (f *faults) report(key, value string) func(*authz.Config) {
	if value != "off" && value != "validation" && value != "everything" {
		f.add(key, value, "off, validation or everything")
	}
	if value == "off" {
		return nil
	}
	return func(c *authz.Config) {
		c.InsecureReportValidation = true
		c.InsecureReportEverything = value == "everything"
		log, next := c.Logger, c.OnDecision
		c.OnDecision = func(ctx context.Context, d authz.Decision) {
			if d.Outcome == authz.Reported {
				log.WarnContext(ctx, "request passed in report mode",
					"operation", d.Operation.ID, "status", d.Cause.Status(),
					"cause", d.Cause.Error())
			}
			if next != nil {
				next(ctx, d)
			}
		}
	}
}
