package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
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
// out except by AuditConfig.Drop. Lines are written in the order of the decisions.
type Audit struct {
	config  AuditConfig
	queue   chan []byte // used with Drop; nil: lines are written at once
	written chan struct{}
	dropped atomic.Uint64

	mu      sync.Mutex // of writing
	failing bool
	partial bool // the last line was written only in part
	now     func() time.Time
}

const (
	auditQueue = 4096        // decisions that wait, with Drop
	auditRetry = time.Second // between attempts to write, without Drop
	auditFlush = 5 * time.Second
)

// NewAudit returns an Audit. [Audit.Close] must be called at the end.
func NewAudit(config AuditConfig) (*Audit, error) {
	if config.Writer == nil {
		return nil, errors.New("server: AuditConfig.Writer is nil")
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	a := &Audit{config: config, now: config.Now, written: make(chan struct{})}
	if a.now == nil {
		a.now = time.Now
	}
	if config.Drop {
		a.queue = make(chan []byte, auditQueue)
		go a.writeQueue()
	}
	return a, nil
}

// Dropped returns the number of decisions that were dropped.
func (a *Audit) Dropped() uint64 { return a.dropped.Load() }

// Close writes the decisions that wait, for 5 seconds at most. No request may be active.
func (a *Audit) Close() {
	if a.queue == nil {
		return
	}
	close(a.queue)
	select {
	case <-a.written:
	case <-time.After(auditFlush):
		a.config.Logger.Error("the audit log was not written to its end", "decisions", len(a.queue))
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
	jsonlines.NewHandler(&line, nil).WriteLine(a.now(), slog.LevelInfo, "decision", attrs)
	return line.Bytes()
}

// record writes a line, or queues it.
func (a *Audit) record(line []byte) {
	if a.queue == nil {
		for !a.write(line) {
			time.Sleep(auditRetry)
		}
		return
	}
	select {
	case a.queue <- line:
	default:
		a.dropped.Add(1)
	}
}

func (a *Audit) writeQueue() {
	defer close(a.written)
	for line := range a.queue {
		if !a.write(line) {
			a.dropped.Add(1)
		}
	}
}

// write reports whether a line was written. It logs when writing begins to fail, and when it works
// again. A line that was cut off stays in the file, and the next one begins on a new line.
func (a *Audit) write(line []byte) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.partial {
		line = append([]byte("\n"), line...)
	}
	n, err := a.config.Writer.Write(line)
	if err == nil && n < len(line) {
		err = io.ErrShortWrite
	}
	a.partial = n > 0 && n < len(line) || a.partial && n == 0
	if failed := err != nil; failed && !a.failing {
		effect := "requests wait"
		if a.config.Drop {
			effect = "decisions are dropped"
		}
		a.config.Logger.Error("cannot write the audit log", "cause", err, "effect", effect)
	} else if !failed && a.failing {
		a.config.Logger.Info("the audit log is written again", "dropped", a.dropped.Load())
	}
	a.failing = err != nil
	return err == nil
}
