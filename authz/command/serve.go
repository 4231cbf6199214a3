package command

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/oasgate/oasgate/authz/server"
)

type serveCommand struct {
	Config  config       `embed:""`
	Program kong.Plugins `embed:""` // the flags of App.Open
	Log     logConfig    `embed:""`
}

// linger gives load balancers time to notice that the server is no longer ready.
const linger = 3 * time.Second

// serve runs the API with the issuers of the configuration.
func (p *program) serve(ctx context.Context, c *serveCommand) error {
	reloads := make(chan os.Signal, 1)
	if c.Config.File != "" { // without a file, SIGHUP ends the process as usual
		signal.Notify(reloads, syscall.SIGHUP)
		defer signal.Stop(reloads)
	}
	settings, err := c.Config.settings(p.prefix(), p.Dev != nil)
	log, logErr := c.Log.logger(p.prefix(), p.stderr)
	if err := errors.Join(err, check(p.Open), logErr); err != nil {
		return &configurationError{err}
	}
	listener, err := net.Listen("tcp", settings.addr)
	if err != nil {
		return fmt.Errorf("%s is %q: %w", p.env.key("ADDR"), settings.addr, err)
	}
	settings.server.Logger, settings.server.Linger = log, linger
	return p.run(ctx, listener, p.Open, settings.server, func(s *server.Server) {
		for {
			select {
			case <-ctx.Done():
				return
			case <-reloads:
				if err := p.reload(c, s); err != nil {
					log.Error("reload failed: the issuers are unchanged", "faults",
						strings.Split(err.Error(), "\n"))
				}
			}
		}
	})
}

// reload reads the issuers again. It returns all faults, and then the server keeps the old issuers.
func (p *program) reload(c *serveCommand, s *server.Server) error {
	settings, err := c.Config.settings(p.prefix(), p.Dev != nil)
	if err != nil {
		return err
	}
	return s.Reload(settings.server.Issuers)
}

// run opens the service and serves it until ctx ends and the last request has ended. Keys are
// fetched and the service stays open until then. The function background runs while the server
// runs.
func (p *program) run(
	ctx context.Context, listener net.Listener, opener Opener, config server.Config,
	background func(*server.Server),
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
	config.Routes, config.Ready, config.Replays = service.Routes, service.Ready, service.Replays
	config.ProblemTypeBase = p.ProblemTypeBase
	if config.Document, err = p.Document(); err != nil {
		return errors.Join(fmt.Errorf("cannot load the document: %w", err), listener.Close())
	}
	s, err := server.New(life, config)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	debug.FreeOSMemory() // of the documents and schemas that only the start needed
	config.Logger.Info("serving", "addr", listener.Addr().String())
	go background(s)
	return s.Serve(ctx, listener)
}
