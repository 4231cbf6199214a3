package impl

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gomodule/redigo/redis"
)

// Replays is a [token.ReplayStore] and an authz.RateCounter that several servers share. It uses
// Redis, or a server with the same protocol such as Valkey.
type Replays struct {
	client *redisClient
}

// replayTimeout limits each use of the store, because a request waits for it.
const replayTimeout = time.Second

// OpenReplays returns the store at a URL. It does no I/O.
func OpenReplays(rawURL string) (*Replays, error) { return openReplays(rawURL, nil) }

// openReplays opens a store with a configuration of TLS. Default: the roots of the system.
func openReplays(rawURL string, config *tls.Config) (*Replays, error) {
	target, err := parseRedisURL(rawURL, config)
	if err != nil {
		return nil, err
	}
	return &Replays{newRedisClient(target)}, nil
}

// Close closes the connections.
func (r *Replays) Close() error { return r.client.Close() }

// Ping returns an error if the server cannot be reached, or if the cluster is down.
func (r *Replays) Ping(ctx context.Context) error {
	_, err := r.client.with(ctx, "", func(do redisDo) (int64, error) {
		if r.client.target.kind != "cluster" {
			_, err := do("PING")
			return 0, err
		}
		info, err := redis.String(do("CLUSTER", "INFO"))
		if err == nil && !strings.Contains(info, "cluster_state:ok") {
			err = errors.New("the Redis cluster is down")
		}
		return 0, err
	})
	return err
}

// Use implements [token.ReplayStore]. Its command, SET with NX, is atomic. It is not retried: if
// the reply to the first attempt was lost, the second would take a fresh proof for a used one.
//
// Redis acknowledges a key before its replicas have it, so that a replica that becomes the primary
// could accept a proof again. WAIT therefore waits for some replicas.
func (r *Replays) Use(ctx context.Context, key string, until time.Time) (fresh bool, err error) {
	key = "oasgate:dpop:" + key
	// the proof can expire while it is checked
	lifetime := max(time.Until(until), time.Second).Milliseconds() + 1
	replicas := r.client.target.replicas
	n, err := r.client.with(ctx, key, func(do redisDo) (int64, error) {
		reply, err := do("SET", key, 1, "PX", lifetime, "NX")
		if err != nil || reply == nil {
			return 0, err
		}
		if replicas == 0 {
			return 1, nil
		}
		have, err := redis.Int(do("WAIT", replicas, (replayTimeout / 2).Milliseconds()))
		if err == nil && have < replicas {
			err = fmt.Errorf("%w: %d replicas have the proof, and the URL's replicas is %d",
				errNotPrimary, have, replicas)
		}
		return 1, err
	})
	if err != nil {
		return false, fmt.Errorf("OASGATE_REPLAY_STORE: %w", err)
	}
	return n == 1, nil
}

// countScript adds 1 to a key, and sets when it expires. A script is atomic: no count stays for
// ever because the connection broke between two commands.
const countScript = `local n = redis.call('INCR', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return n`

// Count implements [authz.RateCounter].
func (r *Replays) Count(ctx context.Context, key string, until time.Time) (int64, error) {
	sum := sha256.Sum256([]byte(key)) // the key has the subject, and any length
	name := "oasgate:rate:" + base64.RawURLEncoding.EncodeToString(sum[:])
	// one second more, because clocks differ
	lifetime := (max(0, time.Until(until)) + time.Second).Milliseconds()
	n, err := r.client.with(ctx, name, func(do redisDo) (int64, error) {
		return redis.Int64(do("EVAL", countScript, 1, name, lifetime))
	})
	if err != nil {
		return 0, fmt.Errorf("OASGATE_REPLAY_STORE: %w", err)
	}
	return n, nil
}
