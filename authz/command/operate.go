package command

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/oasgate/oasgate/authz/server"
)

// operateConfig holds the settings of serve that do not change what clients see.
type operateConfig struct {
	AdminAddr string `name:"admin-addr" key:"ADMIN_ADDR" group:"Operation:" help:"Address for metrics, health and profiles, such as 127.0.0.1:9090. Strangers must not reach it. Default: off."`
	AuditLog  string `name:"audit-log" key:"AUDIT_LOG" group:"Operation:" help:"File to which a line for each decision is appended; - for the standard output. Default: off."`
	AuditFull string `name:"audit-full" key:"AUDIT_FULL" default:"block" group:"Operation:" help:"If a decision cannot be written: block (requests wait) or drop (and count it)."`
}

// operation is an operateConfig with its files and listeners open.
type operation struct {
	admin net.Listener // nil: off
	audit *server.Audit
	file  *os.File // of the audit log; nil: none to close
}

// check returns all faults, joined, without I/O.
func (c operateConfig) check(prefix string) error {
	f := faults{prefix: prefix}
	if c.AdminAddr != "" {
		f.addr("ADMIN_ADDR", c.AdminAddr)
	}
	if c.AuditFull != "block" && c.AuditFull != "drop" {
		f.add("AUDIT_FULL", c.AuditFull, "block or drop")
	}
	return errors.Join(f.all...)
}

// open opens the admin listener and the audit log.
func (p *program) openOperation(c operateConfig, log *slog.Logger) (o operation, err error) {
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	if c.AdminAddr != "" {
		if o.admin, err = net.Listen("tcp", c.AdminAddr); err != nil {
			return o, fmt.Errorf("%s is %q: %w", p.env.key("ADMIN_ADDR"), c.AdminAddr, err)
		}
	}
	if c.AuditLog == "" {
		return o, nil
	}
	config := server.AuditConfig{Writer: p.stdout, Drop: c.AuditFull == "drop", Logger: log}
	if c.AuditLog != "-" {
		o.file, err = os.OpenFile(c.AuditLog, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return o, fmt.Errorf("%s is %q: expected a file that can be appended to: %w",
				p.env.key("AUDIT_LOG"), c.AuditLog, err)
		}
		config.Writer = o.file
	}
	o.audit, err = server.NewAudit(config)
	return o, err
}

// close closes what is open. No request may be active.
func (o operation) close() {
	if o.admin != nil {
		_ = o.admin.Close()
	}
	if o.audit != nil {
		o.audit.Close()
	}
	if o.file != nil {
		_ = o.file.Close()
	}
}

// checkCertificate returns a check of the server's certificate.
func checkCertificate(current func() *tls.Config) func(context.Context) error {
	return func(context.Context) error {
		leaf := current().Certificates[0].Leaf
		if now := time.Now(); now.After(leaf.NotAfter) || now.Before(leaf.NotBefore) {
			return fmt.Errorf("valid from %s to %s only", leaf.NotBefore.Format(time.RFC3339),
				leaf.NotAfter.Format(time.RFC3339))
		}
		return nil
	}
}

// openTelemetry returns nil if nothing is to be exported.
func (p *program) openTelemetry(
	ctx context.Context, log *slog.Logger, page bool,
) (t server.Telemetry, shutdown func(), err error) {
	if p.Telemetry == nil {
		return nil, func() {}, nil
	}
	t, err = p.Telemetry(ctx, server.TelemetryConfig{
		Service: p.Name, Version: programVersion(), Page: page, Logger: log,
	})
	if err != nil || t == nil {
		return nil, func() {}, err
	}
	return t, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := t.Shutdown(ctx); err != nil {
			log.Warn("cannot export the last telemetry", "cause", err.Error())
		}
	}, nil
}

func programVersion() string {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	return build.Main.Version
}

// shown are the variables whose values the effective configuration shows. Of all others it only
// shows whether they are set. An [Opener] adds its own by the tag "shown".
var shown = strings.Fields(`
	ADDR ADMIN_ADDR ALGORITHMS AUDIENCE AUDIT_FULL AUDIT_LOG BASE_PATH CLIENT_CERT_HEADER
	CLIENT_CERT_PROXIES CLIENT_CERT_PROXY_NAMES CONFIG CORS_ORIGINS CREDENTIALS DOCS DPOP
	DPOP_NONCES INSECURE_REPORT ISSUER JWKS_COOLDOWN JWKS_MAX_AGE JWKS_MAX_STALE LEEWAY
	LOG_FORMAT LOG_LEVEL MAX_BODY OVERLAY PUBLIC_PATH REQUEST_TIMEOUT RESOURCE RESPONSES
	TLS_CERT TLS_CLIENT_CA TLS_KEY TRUSTED_PROXIES UNDECODED UNSTATED WITHOUT WRITE_TIMEOUT`)

// effective returns the settings of a command that have a value, by the names of their variables.
func (p *program) effective(flags []*kong.Flag) map[string]string {
	all := map[string]string{}
	for _, flag := range flags {
		key := flag.Tag.Get("key")
		if key == "" || flag.Target.Kind() != reflect.String {
			continue
		}
		value := flag.Target.String()
		if value == "" {
			continue
		}
		isDefault := value == flag.Default
		if !slices.Contains(shown, key) && !flag.Tag.Has("shown") {
			value = "(set)"
		}
		if isDefault {
			value = strings.TrimPrefix(value+" (default)", "(set) ")
		}
		all[p.env.key(key)] = value
	}
	return all
}

// unknownVariables warns of variables that begin with the program's prefix and are not settings.
func (p *program) unknownVariables(log *slog.Logger) {
	known := []string{p.env.key("CLIENT_ID"), p.env.key("CLIENT_SECRET"),
		p.env.key("CLIENT_SECRET_FILE")}
	_ = kong.Visit(p.model, func(node kong.Visitable, next kong.Next) error {
		if flag, ok := node.(*kong.Flag); ok && flag.Tag.Get("key") != "" {
			key := p.env.key(flag.Tag.Get("key"))
			known = append(known, key)
			if flag.Tag.Has("secret") {
				known = append(known, key+"_FILE")
			}
		}
		return next(nil)
	})
	for _, name := range p.env.unknown(known) {
		attrs := []any{"variable", name}
		if near := meant(name, known); near != "" {
			attrs = append(attrs, "did_you_mean", near)
		}
		log.Warn("not a setting of this program: the variable has no effect", attrs...)
	}
}

// meant returns the name that a misspelt one is likely to mean, or "".
func meant(name string, known []string) (near string) {
	least := min(4, 1+len(name)/2)
	for _, candidate := range known {
		if d := distance(name, candidate); d < least {
			near, least = candidate, d
		}
	}
	return near
}

type healthCommand struct {
	Addr string `key:"ADDR" default:":3010" help:"Address that serve listens on."`
	// Admin takes precedence, because the other listener can require TLS.
	Admin string `name:"admin-addr" key:"ADMIN_ADDR" help:"Its address for metrics and health, if any."`
	Ready bool   `help:"Ask whether it is ready, and not only whether it is alive."`
}

// health asks a server on this machine whether it is alive.
func (p *program) health(ctx context.Context, c *healthCommand) error {
	addr, path := c.Addr, "/healthz"
	if c.Admin != "" {
		addr = c.Admin
	}
	if c.Ready {
		path = "/readyz"
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return &configurationError{fmt.Errorf("--addr is %q: expected host:port", addr)}
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	url := "http://" + net.JoinHostPort(host, port) + path
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s returned %s", url, response.Status)
	}
	return nil
}
