package impl

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gomodule/redigo/redis"
)

// Replays is a [token.ReplayStore] and an authz.RateCounter that several servers share. It uses
// Redis, or a server with the same protocol such as Valkey.
type Replays struct {
	pool *redis.Pool
}

// replayTimeout limits each use of the store, because a request waits for it.
const replayTimeout = time.Second

var errReplayURL = errors.New(
	"a URL such as redis://user:password@host:6379/0, or rediss:// for TLS")

// OpenReplays returns the store at a URL. It does no I/O.
func OpenReplays(rawURL string) (*Replays, error) { return openReplays(rawURL, nil) }

// openReplays opens a store with a configuration of TLS. Default: the roots of the system.
func openReplays(rawURL string, config *tls.Config) (*Replays, error) {
	dial, err := parseReplayURL(rawURL, config)
	if err != nil {
		return nil, err
	}
	return &Replays{&redis.Pool{
		DialContext: dial,
		MaxActive:   32,
		MaxIdle:     32,
		IdleTimeout: 5 * time.Minute,
		Wait:        true,
	}}, nil
}

// parseReplayURL returns a function that connects to the server at a URL with the scheme redis,
// rediss (TLS) or unix. The path is the number of the database, of unix the path of the socket.
// Errors do not contain the URL, because it can contain a password.
func parseReplayURL(
	rawURL string, config *tls.Config,
) (func(context.Context) (redis.Conn, error), error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Opaque != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errReplayURL
	}
	options := []redis.DialOption{
		redis.DialConnectTimeout(replayTimeout),
		redis.DialTLSHandshakeTimeout(replayTimeout),
		redis.DialReadTimeout(replayTimeout),
		redis.DialWriteTimeout(replayTimeout),
		redis.DialUseTLS(u.Scheme == "rediss"),
		redis.DialTLSConfig(config),
	}
	if u.User != nil {
		password, _ := u.User.Password()
		if password == "" {
			return nil, errReplayURL
		}
		options = append(options,
			redis.DialUsername(u.User.Username()), redis.DialPassword(password))
	}
	network, address := "tcp", ""
	switch u.Scheme {
	case "unix":
		if u.Host != "" || u.Path == "" {
			return nil, errReplayURL
		}
		network, address = "unix", u.Path
	case "redis", "rediss":
		port := u.Port()
		if port == "" {
			port = "6379"
		}
		address = net.JoinHostPort(u.Hostname(), port)
		if number := strings.TrimPrefix(u.Path, "/"); number != "" {
			database, err := strconv.ParseUint(number, 10, 16)
			if err != nil {
				return nil, errReplayURL
			}
			options = append(options, redis.DialDatabase(int(database)))
		}
		if u.Hostname() == "" {
			return nil, errReplayURL
		}
	default:
		return nil, errReplayURL
	}
	return func(ctx context.Context) (redis.Conn, error) {
		return redis.DialContext(ctx, network, address, options...)
	}, nil
}

// Close closes the connections.
func (r *Replays) Close() error { return r.pool.Close() }

// Ping returns an error if the server cannot be reached.
func (r *Replays) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, replayTimeout)
	defer cancel()
	conn, err := r.pool.GetContext(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = redis.DoContext(conn, ctx, "PING")
	return err
}

// Use implements [token.ReplayStore]. Its one command, SET with NX, is atomic. It is not retried:
// if the reply to the first attempt was lost, the second would take a fresh proof for a used one.
func (r *Replays) Use(ctx context.Context, key string, until time.Time) (fresh bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, replayTimeout)
	defer cancel()
	reply, err := r.set(ctx, "oasgate:dpop:"+key, time.Until(until))
	if err != nil {
		return false, fmt.Errorf("OASGATE_REPLAY_STORE: %w", err)
	}
	return reply != nil, nil
}

// Count implements [authz.RateCounter].
func (r *Replays) Count(ctx context.Context, key string, until time.Time) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, replayTimeout)
	defer cancel()
	conn, err := r.pool.GetContext(ctx)
	if err != nil {
		return 0, fmt.Errorf("OASGATE_REPLAY_STORE: %w", err)
	}
	defer conn.Close()
	sum := sha256.Sum256([]byte(key)) // the key has the subject, and any length
	name := "oasgate:rate:" + base64.RawURLEncoding.EncodeToString(sum[:])
	// one second more, because clocks differ
	lifetime := max(0, time.Until(until)) + time.Second
	_ = conn.Send("MULTI")
	_ = conn.Send("INCR", name)
	_ = conn.Send("PEXPIRE", name, lifetime.Milliseconds())
	replies, err := redis.Values(redis.DoContext(conn, ctx, "EXEC"))
	var n int64
	if err == nil {
		_, err = redis.Scan(replies, &n)
	}
	if err != nil {
		return 0, fmt.Errorf("OASGATE_REPLAY_STORE: %w", err)
	}
	return n, nil
}

// set sets a key that does not exist. The reply is nil if the key exists.
func (r *Replays) set(ctx context.Context, key string, lifetime time.Duration) (any, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	conn, err := r.pool.GetContext(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	lifetime = max(lifetime, time.Second) // the proof can expire while it is checked
	return redis.DoContext(conn, ctx, "SET", key, 1, "PX", lifetime.Milliseconds()+1, "NX")
}
