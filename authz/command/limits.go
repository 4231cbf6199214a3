package command

import (
	"errors"
	"io"
	"log/slog"
	"strconv"

	"github.com/oasgate/oasgate/authz/server"
)

// limitsConfig holds the settings of serve for overload.
type limitsConfig struct {
	MaxActive      string `name:"max-active" key:"MAX_ACTIVE" shown:"" default:"auto" group:"Limits:" help:"Requests that are handled at the same time: a number, auto or none. Others wait for a moment, or get 503. none also removes the limit for the processors."`
	MaxConnections string `name:"max-connections" key:"MAX_CONNECTIONS" shown:"" default:"auto" group:"Limits:" help:"Connections that are open at the same time: a number, auto (as the limit of open files allows) or none."`
	RateLimitStore string `name:"rate-limit-store-failure" key:"RATE_LIMIT_STORE_FAILURE" shown:"" default:"count" group:"Limits:" help:"While the store that servers share for x-authz-rate-limit fails: count (each server by itself) or refuse (503)."`
	DPoPLimit      string `name:"dpop-limit" key:"DPOP_LIMIT" shown:"" default:"10000" group:"Limits:" help:"DPoP proofs of one subject that are accepted in a minute, by each server."`
	LogFull        string `name:"log-full" key:"LOG_FULL" shown:"" default:"drop" group:"Limits:" help:"If the log is not read or its disk is full: drop (and count lines) or block (requests wait)."`
}

// apply sets the limits of a server. It returns all faults, joined.
func (c limitsConfig) apply(prefix string, s *server.Config) error {
	f := faults{prefix: prefix}
	s.MaxActive = f.limit("MAX_ACTIVE", c.MaxActive)
	s.MaxConnections = f.limit("MAX_CONNECTIONS", c.MaxConnections)
	if c.RateLimitStore != "count" && c.RateLimitStore != "refuse" {
		f.add("RATE_LIMIT_STORE_FAILURE", c.RateLimitStore, "count or refuse")
	}
	s.RefuseUncounted = c.RateLimitStore == "refuse"
	var err error
	if s.ProofLimit, err = strconv.Atoi(c.DPoPLimit); err != nil || s.ProofLimit < 1 {
		f.add("DPOP_LIMIT", c.DPoPLimit, "a number above 0")
	}
	if c.LogFull != "drop" && c.LogFull != "block" {
		f.add("LOG_FULL", c.LogFull, "drop or block")
	}
	return errors.Join(f.all...)
}

// limit reads a limit of the server.
func (f *faults) limit(key, value string) int {
	switch n, err := strconv.Atoi(value); {
	case value == "auto":
		return 0
	case value == "none":
		return server.Unlimited
	case err == nil && n > 0:
		return n
	}
	f.add(key, value, "a number above 0, auto or none")
	return 0
}

// logger returns the logger of serve, which does not wait for w, and a function that writes what
// waits.
func (c limitsConfig) logger(
	prefix string, format logConfig, w io.Writer,
) (log *slog.Logger, level *slog.LevelVar, lines *server.Lines, err error) {
	lines = server.NewLines(server.LinesConfig{
		Writer: w, Block: c.LogFull == "block",
		Recovered: func(lost uint64, err error) {
			attrs := []any{"lines", lost}
			if err != nil {
				attrs = append(attrs, "cause", err.Error())
			}
			log.Warn("lines of the log were lost: it was not read, or could not be written",
				attrs...)
		},
	})
	if log, level, err = format.logger(prefix, lines); err != nil {
		_ = lines.Close()
	}
	return log, level, lines, err
}
