package server

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"net/url"
	"runtime/debug"
	"slices"
	"time"

	"github.com/oasgate/oasgate/authz/token"
)

// AdminConfig configures [Server.Admin]. All fields are optional.
type AdminConfig struct {
	// Components are the checks of what the program depends on, by name. They do not decide whether
	// the server is ready: see Config.Ready.
	Components map[string]func(context.Context) error
	// Level is the level of the log, which PUT /log-level changes.
	Level *slog.LevelVar
	// Settings is the configuration that /configuration shows. It must not contain secrets.
	Settings map[string]string
}

// Admin returns the handler of an admin listener, which must not be reachable by strangers:
//
//	/metrics         metrics, for Prometheus
//	/healthz         200 if the process is alive
//	/readyz          200 if the server is ready; with ?verbose, the state of each component
//	/version         the versions of the program, and of Go
//
// and, for processes on the same machine only, /debug/pprof/, /configuration, and /log-level, whose
// level PUT changes.
func (s *Server) Admin(config AdminConfig) http.Handler {
	mux := http.NewServeMux()
	if s.config.Telemetry != nil {
		mux.Handle("GET /metrics", s.config.Telemetry)
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		s.writeReadiness(w, r, config.Components)
	})
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, version())
	})

	local := http.NewServeMux()
	local.HandleFunc("GET /debug/pprof/", pprof.Index)
	local.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	local.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	local.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	local.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	local.HandleFunc("GET /configuration", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, config.Settings)
	})
	if config.Level != nil {
		local.HandleFunc("GET /log-level", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, config.Level.Level().String()+"\n")
		})
		local.HandleFunc("PUT /log-level", func(w http.ResponseWriter, r *http.Request) {
			s.setLevel(w, r, config.Level)
		})
	}
	for _, path := range []string{"/debug/pprof/", "/configuration", "/log-level"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if !isLocal(r) {
				http.Error(w, "only for processes on the same machine, by a loopback address",
					http.StatusForbidden)
				return
			}
			local.ServeHTTP(w, r)
		})
	}
	return http.NewCrossOriginProtection().Handler(mux)
}

// ServeAdmin serves [Server.Admin] until ctx ends.
func (s *Server) ServeAdmin(
	ctx context.Context, listener net.Listener, config AdminConfig,
) error {
	admin := http.Server{ // no WriteTimeout, because the client chooses the duration of a profile
		Handler:           s.Admin(config),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       requestTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          s.http.ErrorLog,
	}
	stop := context.AfterFunc(ctx, func() { _ = admin.Close() })
	defer stop()
	if err := admin.Serve(listener); ctx.Err() == nil {
		return err
	}
	return nil
}

// isLocal reports whether a request is by a process on the same machine. The check of the host
// protects against DNS rebinding: see [Server.acceptsHost]. A proxy on this machine forwards
// requests of other machines, with a header that says so.
func isLocal(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && peer.Addr().Unmap().IsLoopback() &&
		token.IsLoopback((&url.URL{Host: r.Host}).Hostname()) &&
		r.Header["Forwarded"] == nil && r.Header["X-Forwarded-For"] == nil
}

// setLevel sets the level of the log to that of the body.
func (s *Server) setLevel(w http.ResponseWriter, r *http.Request, level *slog.LevelVar) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 16))
	if err == nil {
		err = level.UnmarshalText(bytes.TrimSpace(text))
	}
	if err != nil {
		http.Error(w, "expected debug, info, warn or error", http.StatusBadRequest)
		return
	}
	s.config.Logger.Warn("log level changed", "to", level.Level().String())
	w.WriteHeader(http.StatusNoContent)
}

// component is the state of a part of the server, or of what it depends on.
type component struct {
	Name  string  `json:"name"`
	OK    bool    `json:"ok"`
	Keys  int     `json:"keys,omitempty"`        // of an issuer
	Age   float64 `json:"age_seconds,omitempty"` // of its keys
	Error string  `json:"error,omitempty"`
}

// writeReadiness responds with the readiness of the server and, if asked, of each component.
func (s *Server) writeReadiness(
	w http.ResponseWriter, r *http.Request, checks map[string]func(context.Context) error,
) {
	var response struct {
		Ready      bool        `json:"ready"`
		Components []component `json:"components,omitempty"`
	}
	status := http.StatusOK
	if err := s.current.Load().own.ready(r.Context()); err != nil {
		status = http.StatusServiceUnavailable
	}
	response.Ready = status == http.StatusOK
	if _, verbose := r.URL.Query()["verbose"]; verbose {
		for _, issuer := range s.Stats().Tokens.Issuers {
			response.Components = append(response.Components, component{
				Name: "keys of " + issuer.URL, OK: issuer.Keys > 0, Keys: issuer.Keys,
				Age: issuer.KeyAge.Round(time.Second).Seconds(),
			})
		}
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		for _, name := range slices.Sorted(maps.Keys(checks)) {
			state := component{Name: name}
			if err := checks[name](ctx); err != nil {
				state.Error = err.Error()
			}
			state.OK = state.Error == ""
			response.Components = append(response.Components, state)
		}
	}
	writeJSON(w, status, response)
}

// version returns the versions of the program, of its source and of Go.
func version() map[string]string {
	found := map[string]string{}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return found
	}
	found["module"], found["version"], found["go"] = build.Main.Path, build.Main.Version,
		build.GoVersion
	for _, setting := range build.Settings {
		switch setting.Key {
		case "vcs.revision":
			found["revision"] = setting.Value
		case "vcs.time":
			found["time"] = setting.Value
		case "vcs.modified":
			found["modified"] = setting.Value
		}
	}
	return found
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value)
}
