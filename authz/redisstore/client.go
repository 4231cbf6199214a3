package redisstore

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gomodule/redigo/redis"
	"github.com/mna/redisc"
)

// redisTarget is a Redis server, the Sentinels of one, or a cluster.
type redisTarget struct {
	kind      string // "", "sentinel" or "cluster"
	network   string
	addresses []string // of the server, of Sentinels, or of some nodes of the cluster
	primary   string   // the name of the primary at the Sentinels
	replicas  int      // how many replicas must have a proof
	database  int
	tls       *tls.Config // nil: none
	user      *url.Userinfo
	sentinels *url.Userinfo
}

var errRedisURL = errors.New("a URL such as redis://user:password@host:6379/0, " +
	"redis+sentinel://user:password@host1:26379,host2:26379/primary/0 or " +
	"redis+cluster://user:password@host1:6379,host2:6379, and rediss instead of redis for TLS")

// parseRedisURL parses the URL of a replay store, of the scheme redis or rediss (TLS), alone or
// with +sentinel or +cluster, or unix. Errors do not contain the URL, because it can contain a
// password.
func parseRedisURL(rawURL string, config *tls.Config) (*redisTarget, error) {
	scheme, rest, ok := strings.Cut(rawURL, "://")
	authority := rest[:strings.IndexAny(rest+"/", "/?#")]
	user := strings.LastIndex(authority, "@") + 1
	hosts := strings.Split(authority[user:], ",") // which url.Parse does not know
	u, err := url.Parse(scheme + "://" + rest[:user] + hosts[0] + rest[len(authority):])
	if !ok || err != nil || u.Opaque != "" || u.Fragment != "" {
		return nil, errRedisURL
	}
	scheme, kind, plus := strings.Cut(u.Scheme, "+")
	target := &redisTarget{kind: kind, network: "tcp", user: u.User}
	if u.User != nil && password(u.User) == "" || len(hosts) > 1 && !plus {
		return nil, errRedisURL
	}
	if scheme == "unix" {
		if plus || u.Host != "" || u.Path == "" || u.RawQuery != "" {
			return nil, errRedisURL
		}
		target.network, target.addresses = "unix", []string{u.Path}
		return target, nil
	}
	path, port := strings.TrimPrefix(u.Path, "/"), "6379"
	switch {
	case scheme != "redis" && scheme != "rediss":
		return nil, errRedisURL
	case kind == "sentinel":
		port = "26379"
		target.primary, path, _ = strings.Cut(path, "/")
		if target.primary == "" {
			return nil, errRedisURL
		}
	case kind == "cluster" && path != "" || kind != "cluster" && plus: // a cluster has database 0
		return nil, errRedisURL
	}
	if scheme == "rediss" {
		target.tls = cmp.Or(config, &tls.Config{})
	}
	if path != "" {
		number, err := strconv.ParseUint(path, 10, 16)
		if err != nil {
			return nil, errRedisURL
		}
		target.database = int(number)
	}
	for _, host := range hosts {
		h, err := url.Parse("//" + host)
		if err != nil || h.Hostname() == "" {
			return nil, errRedisURL
		}
		number := cmp.Or(h.Port(), port)
		if _, err := strconv.ParseUint(number, 10, 16); err != nil {
			return nil, errRedisURL
		}
		target.addresses = append(target.addresses, net.JoinHostPort(h.Hostname(), number))
	}
	return target, target.readQuery(u.RawQuery)
}

// readQuery reads the parameters of a URL.
func (t *redisTarget) readQuery(raw string) error {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return errRedisURL
	}
	if t.kind != "" {
		t.replicas = 1
	}
	for name, values := range query {
		switch {
		case len(values) > 1:
			return errors.New("each parameter once in the URL")
		case name == "replicas" && t.kind != "":
			n, err := strconv.ParseUint(values[0], 10, 8)
			if err != nil {
				return errors.New("a number of replicas, from 0 to 255, in the URL's replicas")
			}
			t.replicas = int(n)
		case name == "sentinel_password" && t.kind == "sentinel" && values[0] != "":
			t.sentinels = url.UserPassword(query.Get("sentinel_username"), values[0])
		case name == "sentinel_username" && query.Get("sentinel_password") != "":
		default:
			return errors.New("no parameters in the URL except replicas (with +sentinel or " +
				"+cluster), and sentinel_username and sentinel_password (with +sentinel)")
		}
	}
	return nil
}

func password(user *url.Userinfo) string {
	secret, _ := user.Password()
	return secret
}

// dial connects to a server of the target.
func (t *redisTarget) dial(
	ctx context.Context, address string, user *url.Userinfo, database int,
) (redis.Conn, error) {
	connect := replayTimeout
	if len(t.addresses) > 1 {
		connect /= 4 // so that another one can be tried
	}
	options := []redis.DialOption{
		redis.DialConnectTimeout(connect),
		redis.DialTLSHandshakeTimeout(connect),
		redis.DialReadTimeout(replayTimeout),
		redis.DialWriteTimeout(replayTimeout),
		redis.DialDatabase(database),
		redis.DialUseTLS(t.tls != nil),
		redis.DialTLSConfig(t.tlsFor(address)),
	}
	if user != nil {
		options = append(options, redis.DialUsername(user.Username()),
			redis.DialPassword(password(user)))
	}
	return redis.DialContext(ctx, t.network, address, options...)
}

// tlsFor returns the configuration for a server. Sentinels and clusters usually give the addresses
// of servers by IP, which certificates rarely have: then the host of the URL is expected, unless
// the configuration has a name.
func (t *redisTarget) tlsFor(address string) *tls.Config {
	host, _, _ := net.SplitHostPort(address)
	named, _, _ := net.SplitHostPort(t.addresses[0])
	if t.tls == nil || t.tls.ServerName != "" || net.ParseIP(host) == nil ||
		net.ParseIP(named) != nil {
		return t.tls
	}
	config := t.tls.Clone()
	config.ServerName = named
	return config
}

// dialPrimary asks Sentinels for the primary, beginning with the given one, and connects to it.
func (t *redisTarget) dialPrimary(ctx context.Context, first uint64) (redis.Conn, error) {
	var faults []error
	for i := range t.addresses {
		sentinel := t.addresses[(first+uint64(i))%uint64(len(t.addresses))]
		conn, err := t.dialPrimaryOf(ctx, sentinel)
		if err == nil {
			return conn, nil
		}
		faults = append(faults, fmt.Errorf("sentinel %s: %w", sentinel, err))
	}
	return nil, errors.Join(faults...)
}

func (t *redisTarget) dialPrimaryOf(ctx context.Context, sentinel string) (redis.Conn, error) {
	asked, err := t.dial(ctx, sentinel, t.sentinels, 0)
	if err != nil {
		return nil, err
	}
	defer asked.Close()
	var host, port string
	if err := ask(ctx, asked, []any{&host, &port}, "SENTINEL", "GET-MASTER-ADDR-BY-NAME",
		t.primary); err != nil {
		return nil, fmt.Errorf("no primary %q: %w", t.primary, err)
	}
	conn, err := t.dial(ctx, net.JoinHostPort(host, port), t.user, t.database)
	if err != nil {
		return nil, err
	}
	var role string
	if err = ask(ctx, conn, []any{&role}, "ROLE"); err == nil && role != "master" {
		err = fmt.Errorf("the server at %s:%s is not a primary", host, port)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// ask sends a command whose reply begins with the results.
func ask(ctx context.Context, conn redis.Conn, results []any, name string, args ...any) error {
	reply, err := redis.Values(redis.DoContext(conn, ctx, name, args...))
	if err == nil {
		_, err = redis.Scan(reply, results...)
	}
	return err
}

// redisClient has the connections to a target.
type redisClient struct {
	target   *redisTarget
	pool     *redis.Pool                    // nil: cluster
	cluster  atomic.Pointer[redisc.Cluster] // nil: pool
	restarts atomic.Int64                   // when cluster was last made anew, in Unix ns

	// slots limits the uses in progress, and with them the connections and goroutines. The pools
	// must not wait themselves: redigo 1.9 panics if a pool is closed while a use waits in it.
	slots chan struct{}

	// generation counts the failures after which connections are replaced, because they are
	// probably broken, or their server is no longer the primary.
	generation atomic.Uint64
}

func newRedisClient(target *redisTarget) *redisClient {
	c := &redisClient{
		target: target,
		slots:  make(chan struct{}, usesPerAddress*len(target.addresses)),
	}
	switch target.kind {
	case "cluster":
		c.cluster.Store(c.newCluster())
	case "sentinel":
		c.pool = c.newPool(target.dialPrimary)
	default:
		c.pool = c.newPool(func(ctx context.Context, _ uint64) (redis.Conn, error) {
			return target.dial(ctx, target.addresses[0], target.user, target.database)
		})
	}
	return c
}

// usesPerAddress is the number of uses in progress for each address of the URL.
const usesPerAddress = 32

func (c *redisClient) newCluster() *redisc.Cluster {
	return &redisc.Cluster{StartupNodes: c.target.addresses, CreatePool: c.nodePool}
}

// restart makes a cluster anew from the nodes of the URL, at most once a second, when none of its
// nodes can be reached: all may have moved to other addresses.
func (c *redisClient) restart(old *redisc.Cluster) {
	last, now := c.restarts.Load(), time.Now().UnixNano()
	if now-last < int64(time.Second) || !c.restarts.CompareAndSwap(last, now) {
		return
	}
	if c.cluster.CompareAndSwap(old, c.newCluster()) {
		_ = old.Close()
	}
}

// pooledConn is a connection of a generation.
type pooledConn struct {
	redis.ConnWithContext
	generation uint64
}

var errOldConn = errors.New("the connection is older than the last failure")

// newPool returns a pool of connections that dial makes, which gets the generation.
func (c *redisClient) newPool(
	dial func(context.Context, uint64) (redis.Conn, error),
) *redis.Pool {
	return &redis.Pool{
		DialContext: func(ctx context.Context) (redis.Conn, error) {
			generation := c.generation.Load()
			conn, err := dial(ctx, generation)
			if err != nil {
				return nil, err
			}
			return &pooledConn{conn.(redis.ConnWithContext), generation}, nil
		},
		TestOnBorrow: func(conn redis.Conn, _ time.Time) error {
			if conn.(*pooledConn).generation != c.generation.Load() {
				return errOldConn
			}
			return nil
		},
		MaxIdle:     usesPerAddress,
		IdleTimeout: 5 * time.Minute,
	}
}

// nodePool returns the pool of a node of the cluster. The address is as in a reply of the cluster:
// an IPv6 address has no brackets, and no host means that of the URL.
func (c *redisClient) nodePool(address string, _ ...redis.DialOption) (*redis.Pool, error) {
	colon := strings.LastIndex(address, ":")
	host, port := strings.Trim(address[:max(colon, 0)], "[]"), address[colon+1:]
	if host == "" {
		host, _, _ = net.SplitHostPort(c.target.addresses[0])
	}
	return c.newPool(func(ctx context.Context, _ uint64) (redis.Conn, error) {
		return c.target.dial(ctx, net.JoinHostPort(host, port), c.target.user, 0)
	}), nil
}

func (c *redisClient) Close() error {
	if cluster := c.cluster.Load(); cluster != nil {
		return cluster.Close()
	}
	return c.pool.Close()
}

// redisDo sends a command, and returns the reply.
type redisDo func(name string, args ...any) (any, error)

// with calls use with a connection for a key, within the timeout.
func (c *redisClient) with(
	ctx context.Context, key string, use func(redisDo) (int64, error),
) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, replayTimeout)
	defer cancel()
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case c.slots <- struct{}{}:
	}
	if err := ctx.Err(); err != nil {
		<-c.slots
		return 0, err
	}
	cluster := c.cluster.Load()
	if cluster == nil {
		defer func() { <-c.slots }()
		conn, err := c.pool.GetContext(ctx)
		if err != nil {
			return 0, err
		}
		// A client that disconnects must not break the connection.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), replayTimeout)
		defer cancel()
		return c.finish(conn, use, func(name string, args ...any) (any, error) {
			return redis.DoContext(conn, ctx, name, args...)
		})
	}
	// The library for clusters does not take a context.
	type outcome struct {
		n   int64
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		defer func() { <-c.slots }()
		defer func() {
			if fault := recover(); fault != nil { // as net/http does for a request
				done <- outcome{0, fmt.Errorf("panic: %v", fault)}
			}
		}()
		n, err := c.withNode(cluster, key, use)
		done <- outcome{n, err}
	}()
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case got := <-done:
		return got.n, got.err
	}
}

// withNode calls use with a connection to the node of the cluster that has a key.
func (c *redisClient) withNode(
	cluster *redisc.Cluster, key string, use func(redisDo) (int64, error),
) (int64, error) {
	conn := cluster.Get()
	retry, err := redisc.RetryConn(conn, clusterAttempts, clusterPause)
	if err == nil {
		err = redisc.BindConn(conn, key)
	}
	if err != nil {
		conn.Close()
		c.restart(cluster)
		return 0, err
	}
	return c.finish(retry, use, retry.Do)
}

const (
	clusterAttempts = 5                      // at servers that say that another one has the key
	clusterPause    = 100 * time.Millisecond // while keys are moved
)

// errNotPrimary means that the server does not act as a primary.
var errNotPrimary = errors.New("not an accepted primary")

// finish uses a connection, and closes it.
func (c *redisClient) finish(
	conn redis.Conn, use func(redisDo) (int64, error), do redisDo,
) (int64, error) {
	defer conn.Close()
	generation := c.generation.Load()
	n, err := use(do)
	if err == nil {
		return n, nil
	}
	refused, _ := errors.AsType[redis.Error](err)
	timeout, ok := errors.AsType[net.Error](conn.Err())
	if errors.Is(err, errNotPrimary) || strings.HasPrefix(string(refused), "READONLY") ||
		conn.Err() != nil && !(ok && timeout.Timeout()) {
		c.generation.CompareAndSwap(generation, generation+1)
	}
	return 0, err
}
