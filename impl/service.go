// Package impl implements the operations of this API.
package impl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/command"
	"github.com/oasgate/oasgate/authz/echov4"
	"github.com/oasgate/oasgate/authz/redisstore"
	"github.com/oasgate/oasgate/gen"
)

// Serve holds the settings that this API adds to serve: see [command.Opener].
type Serve struct {
	ReplayStore string `name:"replay-store" key:"REPLAY_STORE" secret:"" help:"Redis in which several servers store used DPoP proofs: redis://user:password@host:6379/0, redis+sentinel://host1,host2/primary or redis+cluster://host1,host2. Default: in memory, for one server."`
	Database    string `name:"database" key:"DATABASE_URL" secret:"" default:"sqlite:data/oasgate.db" help:"Database of the messages: sqlite: and the path of a file, or postgres://user:password@host/database."`
}

// Check returns the faults of the settings, without passwords.
func (s *Serve) Check() error {
	fault := checkDatabase("OASGATE_DATABASE_URL", s.Database)
	if s.ReplayStore == "" {
		return fault
	}
	if _, err := s.replays(); err != nil {
		fault = errors.Join(fault, faultOf("OASGATE_REPLAY_STORE", s.ReplayStore, err))
	}
	return fault
}

// replays returns the store of used proofs and counts. It does not connect.
func (s *Serve) replays() (*redisstore.Store, error) {
	return redisstore.New(redisstore.Config{URL: s.ReplayStore, Prefix: "oasgate:"})
}

// Open implements [command.Opener].
func (s *Serve) Open(ctx context.Context, log *slog.Logger) (*command.Service, error) {
	service, err := openService(ctx, s.Database, log)
	if err != nil || s.ReplayStore == "" {
		return service, err
	}
	replays, err := s.replays()
	if err != nil {
		return nil, errors.Join(err, service.Close())
	}
	service.Replays, service.RateCounter = replays, replays
	service.Components["replay store"] = replays.Ping
	closeStore := service.Close
	service.Close = func() error {
		_ = replays.Close()
		return closeStore()
	}
	return service, nil
}

// Probe implements [command.Prober].
func (s *Serve) Probe(ctx context.Context) map[string]error {
	found := map[string]error{"database": probeDatabase(ctx, s.Database)}
	if s.ReplayStore != "" {
		replays, err := s.replays()
		if err == nil {
			err = replays.Ping(ctx)
			_ = replays.Close()
		}
		found["replay store"] = err
	}
	return found
}

// Dev holds the settings that this API adds to dev.
type Dev struct {
	Database string `default:"sqlite:data/dev.db" help:"Database of the messages. There is no environment variable for it, so that dev does not use the database of serve."`
}

// Check returns the faults of the settings, without passwords.
func (d *Dev) Check() error { return checkDatabase("--database", d.Database) }

// Open implements [command.Opener].
func (d *Dev) Open(ctx context.Context, log *slog.Logger) (*command.Service, error) {
	return openService(ctx, d.Database, log)
}

func openService(
	ctx context.Context, database string, log *slog.Logger,
) (*command.Service, error) {
	store, err := OpenStore(ctx, StoreConfig{URL: database, Logger: log})
	if err != nil {
		return nil, err
	}
	return &command.Service{
		Routes:     Routes(Handlers{Messages: store}),
		Components: map[string]func(context.Context) error{"database": store.Ping},
		Pools:      store.Pools,
		Close:      store.Close,
	}, nil
}

// Routes returns a function that returns the handler of the operations of openapi.yaml.
func Routes(handlers gen.StrictServerInterface) func(g *authz.Gate) (http.Handler, error) {
	return func(g *authz.Gate) (http.Handler, error) {
		return echov4.Routes(g, func(e *echo.Echo) {
			gen.RegisterHandlersWithBaseURL(e, gen.NewStrictHandler(handlers, nil), g.BasePath())
		})
	}
}

func checkDatabase(setting, url string) error {
	if err := checkURL(url); err != nil {
		return faultOf(setting, url, err)
	}
	return nil
}

// faultOf returns the fault of a setting that can contain a password.
func faultOf(setting, url string, err error) error {
	return fmt.Errorf("%s is %q: %w", setting, redacted(url), err)
}
