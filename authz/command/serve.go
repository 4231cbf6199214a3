package command

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/server"
)

type serveCommand struct {
	Config  config       `embed:""`
	Policy  policyConfig `embed:""`
	Program kong.Plugins `embed:""` // the flags of App.Open
	Log     logConfig    `embed:""`
}

// linger is longer than load balancers usually take to notice that a server is no longer ready.
const linger = 3 * time.Second

// serve runs the API for the issuers of the configuration.
func (p *program) serve(ctx context.Context, c *serveCommand) error {
	hangups := make(chan os.Signal, 1)
	if c.Config.File != "" || c.Policy.Credentials != "" { // else SIGHUP ends the process, as usual
		signal.Notify(hangups, syscall.SIGHUP)
		defer signal.Stop(hangups)
	}
	settings, err := c.Config.settings(p.prefix(), p.Dev != nil)
	policy, policyErr := c.Policy.policy(p.prefix())
	log, logErr := c.Log.logger(p.prefix(), p.stderr)
	if err := errors.Join(err, policyErr, check(p.Open), logErr); err != nil {
		return &configurationError{err}
	}
	listener, err := net.Listen("tcp", settings.addr)
	if err != nil {
		return fmt.Errorf("%s is %q: %w", p.env.key("ADDR"), settings.addr, err)
	}
	settings.server.Logger, settings.server.Linger = log, linger
	return p.run(ctx, listener, p.Open, policy, settings.server, func(s *server.Server) {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangups:
				if err := p.reload(c, policy, s); err != nil {
					log.Error("the issuers and credentials stay as they were", "faults", strings.Split(err.Error(), "\n"))
				}
			}
		}
	})
}

// reload reads the files of issuers and credentials again. If anything is wrong with them, the server
// goes on as before.
func (p *program) reload(c *serveCommand, policy *policy, s *server.Server) error {
	settings, err := c.Config.settings(p.prefix(), p.Dev != nil)
	credentials, credentialsErr := c.Policy.readCredentials(p.prefix())
	if err := errors.Join(err, credentialsErr); err != nil {
		return err
	}
	before := policy.credentials.Swap(&credentials)
	if err := s.Reload(settings.server.Issuers); err != nil {
		policy.credentials.Store(before)
		return err
	}
	return nil
}

// run opens the service and serves it until ctx ends and the requests under way have ended. Until
// then, keys are fetched, and the service is open. attend runs beside the server.
func (p *program) run(
	ctx context.Context, listener net.Listener, opener Opener, policy *policy, config server.Config,
	attend func(*server.Server),
) (err error) {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	service, err := opener.Open(ctx, config.Logger)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	if service.Close != nil {
		defer func() { err = errors.Join(err, service.Close()) }()
	}
	config.Gate = chain(service.Gate, policy.gate, config.Gate)
	config.Routes, config.Ready, config.Replays = service.Routes, service.Ready, service.Replays
	config.ProblemTypeBase = p.ProblemTypeBase
	if config.Document == nil {
		if config.Document, err = policy.document(p.Document); err != nil {
			return errors.Join(err, listener.Close())
		}
	}
	s, err := server.New(life, config)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	config.Logger.Info("serving", "addr", listener.Addr().String())
	go attend(s)
	return s.Serve(ctx, listener)
}

// chain returns a function that calls those that are not nil, in order.
func chain(all ...func(*authz.Config)) func(*authz.Config) {
	return func(c *authz.Config) {
		for _, f := range all {
			if f != nil {
				f(c)
			}
		}
	}
}

// report returns what has a gate let requests pass that it would refuse, and log why; nil: nothing.
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
		log, further := c.Logger, c.OnDecision
		c.OnDecision = func(ctx context.Context, d authz.Decision) {
			if d.Outcome == authz.Reported {
				log.WarnContext(ctx, "let pass, because only reported",
					"operation", d.Operation.ID, "status", d.Cause.Status(), "cause", d.Cause.Error())
			}
			if further != nil {
				further(ctx, d)
			}
		}
	}
}
