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
	MaxActive      string `name:"max-active" key:"MAX_ACTIVE" shown:"" default:"auto" group:"Limits:" help:"Requests that are handled at the same time: a number, auto or none. Others wait for a moment, or get 503."`
	RateLimitStore string `name:"rate-limit-store-failure" key:"RATE_LIMIT_STORE_FAILURE" shown:"" default:"count" group:"Limits:" help:"While the store that servers share for x-authz-rate-limit fails: count (each server by itself) or refuse (503)."`
	LogFull        string `name:"log-full" key:"LOG_FULL" shown:"" default:"drop" group:"Limits:" help:"If the log is not read or its disk is full: drop (and count lines) or block (requests wait)."`
}

// apply sets the limits of a server. It returns all faults, joined.
func (c limitsConfig) apply(prefix string, s *server.Config) error {
	f := faults{prefix: prefix}
	switch n, err := strconv.Atoi(c.MaxActive); {
	case c.MaxActive == "auto":
	case c.MaxActive == "none":
		s.MaxActive = server.Unlimited
	case err != nil || n <= 0:
		f.add("MAX_ACTIVE", c.MaxActive, "a number above 0, auto or none")
	default:
		s.MaxActive = n
	}
	if c.RateLimitStore != "count" && c.RateLimitStore != "refuse" {
		f.add("RATE_LIMIT_STORE_FAILURE", c.RateLimitStore, "count or refuse")
	}
	s.RefuseUncounted = c.RateLimitStore == "refuse"
	if c.LogFull != "drop" && c.LogFull != "block" {
		f.add("LOG_FULL", c.LogFull, "drop or block")
	}
	return errors.Join(f.all...)
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
		lines.Close()
	}
	return log, level, lines, err
}
