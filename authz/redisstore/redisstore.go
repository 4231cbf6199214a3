// Package redisstore shares state of several servers in Redis, or in a server with the same
// protocol such as Valkey: the used DPoP proofs (RFC 9449 §11.1), and the counts of rate limits.
package redisstore

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

// Config configures a [Store]. Only URL and Prefix have no default.
type Config struct {
	// URL is redis://user:password@host:6379/0, rediss:// for TLS, or unix:// and the path of a
	// socket. redis+sentinel://host1,host2/primary/0 and redis+cluster://host1,host2, or rediss with
	// TLS, are for Sentinels and clusters: their parameter replicas, by default 1, is the number of
	// replicas that must have a proof before it is accepted. The parameters sentinel_username and
	// sentinel_password are the credentials at the Sentinels.
	URL string
	// Prefix is the prefix of all keys, such as "orders:". Servers with the same prefix share their
	// state.
	Prefix string
	// TLS configures connections with TLS. Default: the roots of the system.
	TLS *tls.Config
	// Now is the clock of the server that uses the store (server.Config.Now). Default: time.Now.
	Now func() time.Time
}

// Store is a token.ReplayStore and an authz.RateCounter. It is safe for concurrent use.
type Store struct {
	prefix string
	client *redisClient
	now    func() time.Time
}

// replayTimeout limits each use of the store, because a request waits for it.
const replayTimeout = time.Second

// New returns a store, or the joined faults of config. It does no I/O. The error does not contain
// the URL, because it can contain a password.
func New(config Config) (*Store, error) {
	var faults []error
	target, err := parseRedisURL(config.URL, config.TLS)
	if err != nil {
		faults = append(faults, fmt.Errorf("expected %w", err))
	}
	if config.Prefix == "" {
		faults = append(faults, errors.New("redisstore: Config.Prefix is empty"))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	now := config.Now
	if now == nil {
		now = time.Now
	}
	return &Store{config.Prefix, newRedisClient(target), now}, nil
}

// Close closes the connections.
func (s *Store) Close() error { return s.client.Close() }

// Ping returns an error if the server cannot be reached, or if the cluster is down.
func (s *Store) Ping(ctx context.Context) error {
	_, err := s.client.with(ctx, "", func(do redisDo) (int64, error) {
		if s.client.target.kind != "cluster" {
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

// Use implements token.ReplayStore. Its command, SET with NX, is atomic. It is not retried: if
// the reply to the first attempt was lost, the second would take a fresh proof for a used one.
//
// Redis acknowledges a key before its replicas have it, so that a replica that becomes the primary
// could accept a proof again. WAIT therefore waits for some replicas.
func (s *Store) Use(
	ctx context.Context, key, _ string, until time.Time,
) (fresh bool, err error) {
	key = s.prefix + "dpop:" + key
	// the proof can expire while it is checked
	lifetime := max(until.Sub(s.now()), time.Second).Milliseconds() + 1
	replicas := s.client.target.replicas
	n, err := s.client.with(ctx, key, func(do redisDo) (int64, error) {
		reply, err := do("SET", key, 1, "PX", lifetime, "NX")
		if err != nil || reply == nil {
			return 0, err
		}
		if reply != "OK" {
			return 0, fmt.Errorf("unexpected reply to SET: %T", reply)
		}
		if replicas == 0 {
			return 1, nil
		}
		reply, err = do("WAIT", replicas, (replayTimeout / 2).Milliseconds())
		have, ok := reply.(int64)
		if err == nil && (!ok || have < int64(replicas)) {
			err = fmt.Errorf("%w: %d replicas have the proof, and the URL's replicas is %d",
				errNotPrimary, have, replicas)
		}
		return 1, err
	})
	if err != nil {
		return false, fmt.Errorf("redisstore: %w", err)
	}
	return n == 1, nil
}

// countScript adds 1 to a key, and sets when it expires. A script is atomic: no count stays for
// ever because the connection broke between two commands.
const countScript = `local n = redis.call('INCR', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return n`

// Count implements authz.RateCounter.
func (s *Store) Count(ctx context.Context, key string, until time.Time) (int64, error) {
	sum := sha256.Sum256([]byte(key)) // the key has the subject, and any length
	name := s.prefix + "rate:" + base64.RawURLEncoding.EncodeToString(sum[:])
	// one second more, because clocks differ
	lifetime := (max(0, until.Sub(s.now())) + time.Second).Milliseconds()
	n, err := s.client.with(ctx, name, func(do redisDo) (int64, error) {
		return redis.Int64(do("EVAL", countScript, 1, name, lifetime))
	})
	if err != nil {
		return 0, fmt.Errorf("redisstore: %w", err)
	}
	return n, nil
}
