package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/internal/jsonlines"
)

// AuditConfig configures an [Audit]. Only Writer has no default.
type AuditConfig struct {
	Writer io.Writer
	// Drop drops decisions that cannot be written, and counts them. Default: requests wait, before
	// their handlers run, until their decisions are written.
	Drop   bool
	Logger *slog.Logger     // of failures to write; default slog.Default()
	Now    func() time.Time // default time.Now
}

// Audit writes a line of JSON for each decision about a request: the time, who sent it, the
// operation, and the outcome with its cause. It never contains a credential, and no line is left
// out except by AuditConfig.Drop. Lines of concurrent requests can be in any order, and after a
// failure to write, those of requests that waited come up to a second later than others.
type Audit struct {
	config AuditConfig
	lines  *Lines // used with Drop; nil: decisions are written at once

	mu      sync.Mutex // of the fields below
	out     lineWriter
	failing bool
}

const auditRetry = time.Second // between attempts to write, without Drop

// NewAudit returns an Audit. [Audit.Close] must be called at the end.
func NewAudit(config AuditConfig) (*Audit, error) {
	if config.Writer == nil {
		return nil, errors.New("server: AuditConfig.Writer is nil")
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	a := &Audit{config: config, out: lineWriter{w: config.Writer}}
	if config.Drop {
		a.lines = NewLines(LinesConfig{
			Writer: config.Writer,
			Failed: func(err error) { a.logFailure(err, "decisions are dropped") },
			Recovered: func(lost uint64, _ error) {
				config.Logger.Info("the audit log is written again", "dropped", lost)
			},
		})
	}
	return a, nil
}

func (a *Audit) logFailure(err error, effect string) {
	a.config.Logger.Error("cannot write the audit log", "cause", err, "effect", effect)
}

// Dropped returns the number of decisions that were dropped.
func (a *Audit) Dropped() uint64 {
	if a.lines == nil {
		return 0
	}
	return a.lines.Lost()
}

// Close writes the decisions that wait, for 2 seconds at most. No request may be active.
func (a *Audit) Close() {
	if a.lines == nil {
		return
	}
	if err := a.lines.Close(); err != nil {
		a.config.Logger.Error("the audit log was not written to its end", "cause", err)
	}
}

// before returns a hook of a gate that writes decisions and then calls the next hook, if any.
func (a *Audit) before(
	next func(context.Context, authz.Decision),
) func(context.Context, authz.Decision) {
	return func(ctx context.Context, d authz.Decision) {
		a.record(a.line(ctx, d))
		if next != nil {
			next(ctx, d)
		}
	}
}

// line returns the line of a decision.
func (a *Audit) line(ctx context.Context, d authz.Decision) []byte {
	attrs := make([]slog.Attr, 0, 8)
	text := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, jsonlines.Cap(value, maxLogged)))
		}
	}
	text("outcome", string(d.Outcome))
	if d.Operation != nil {
		text("operation", d.Operation.ID)
	}
	if d.Cause != nil {
		text("code", causeOf(d.Cause))
		text("cause", d.Cause.Error())
	}
	if d.Principal != nil {
		text("issuer", d.Principal.Issuer())
		text("subject", d.Principal.Subject())
		text("client_id", d.Principal.ClientID())
	}
	if x, ok := ctx.(*exchange); ok {
		text("request_id", x.id[0])
	}
	var line bytes.Buffer
	jsonlines.NewHandler(&line, nil).WriteLine(a.config.Now(), slog.LevelInfo, "decision", attrs)
	return line.Bytes()
}

// record writes a line, and waits until it is written, or buffers it with Drop.
func (a *Audit) record(line []byte) {
	if a.lines != nil {
		_, _ = a.lines.Write(line)
		return
	}
	for !a.write(line) {
		time.Sleep(auditRetry)
	}
}

// write reports whether a line was written. It logs when writing begins to fail, and when it works
// again.
func (a *Audit) write(line []byte) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, err := a.out.write(line)
	if err != nil && !a.failing {
		a.logFailure(err, "requests wait")
	} else if err == nil && a.failing {
		a.config.Logger.Info("the audit log is written again")
	}
	a.failing = err != nil
	return err == nil
}
