package impl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Replays is a [token.ReplayStore] that several servers share, in Redis or what speaks its protocol, such as Valkey.
type Replays struct {
	client *redis.Client
}

// replayTimeout bounds each use of the store: a request waits for it.
const replayTimeout = time.Second

var errReplayURL = errors.New("a URL such as redis://user:password@host:6379/0, or rediss:// for TLS")

// OpenReplays returns the store at a URL. It does no I/O.
func OpenReplays(url string) (*Replays, error) {
	options, err := redis.ParseURL(url)
	if err != nil {
		return nil, errReplayURL // the parser's own words hold the URL, and so the password
	}
	// The library's own log goes to standard error, past ours. All that it says comes back as errors, too.
	redis.SetLogger(silence{})
	options.Protocol = 2 // no server speaks unasked
	options.DisableIdentity = true
	options.DialTimeout, options.ReadTimeout, options.WriteTimeout, options.PoolTimeout = replayTimeout, replayTimeout, replayTimeout, replayTimeout
	options.ContextTimeoutEnabled = true
	// A SET whose answer was lost would, tried again, find itself and take a fresh proof for a used one.
	options.MaxRetries = -1
	options.DialerRetries = 1
	return &Replays{redis.NewClient(options)}, nil
}

// Close closes the connections.
func (r *Replays) Close() error { return r.client.Close() }

// Use implements [token.ReplayStore]: SET NX, one step of the server, which alone decides who came first.
func (r *Replays) Use(ctx context.Context, key string, until time.Time) (fresh bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, replayTimeout)
	defer cancel()
	const least = time.Second // of a proof that ended while it was checked
	fresh, err = r.client.SetNX(ctx, "oasgate:dpop:"+key, 1, max(time.Until(until), least)).Result()
	if err != nil {
		return false, fmt.Errorf("OASGATE_REPLAY_STORE: %w", err)
	}
	return fresh, nil
}

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}
