package redisstore

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
)

const redisPassword = "opensesame"

// redisProcess is a Redis or a Sentinel on a loopback port.
type redisProcess struct {
	t       *testing.T
	addr    string
	args    []string
	said    bytes.Buffer
	command *exec.Cmd
}

// startRedis starts redis-server with a configuration, on a free port.
func startRedis(t *testing.T, config string, args ...string) *redisProcess {
	t.Helper()
	if testing.Short() {
		t.Skip("Redis is not tested with -short")
	}
	program, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("redis-server is not installed")
	}
	dir := t.TempDir()
	addr, bus := freePort(t), freePort(t)
	_, port, _ := net.SplitHostPort(addr)
	_, busPort, _ := net.SplitHostPort(bus)
	config = "bind 127.0.0.1\nport " + port + "\ndir " + dir + "\nsave \"\"\nrequirepass " +
		redisPassword + "\nmasterauth " + redisPassword + "\nrepl-diskless-sync-delay 0\n" +
		strings.ReplaceAll(config, "BUS", busPort)
	file := filepath.Join(dir, "redis.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &redisProcess{t: t, addr: addr, args: append([]string{program, file}, args...)}
	p.start()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			said := p.said.String()
			t.Logf("Redis at %s:\n%s", addr, said[max(0, len(said)-2000):])
		}
	})
	return p
}

func freePort(t *testing.T) string {
	t.Helper()
	listener := listen(t)
	defer listener.Close()
	return listener.Addr().String()
}

// start starts the process, again after kill.
func (p *redisProcess) start() {
	p.t.Helper()
	p.command = exec.Command(p.args[0], p.args[1:]...)
	p.command.Stdout, p.command.Stderr = &p.said, &p.said
	if err := p.command.Start(); err != nil {
		p.t.Fatal(err)
	}
	eventually(p.t, "Redis listens at "+p.addr, func() bool {
		_, err := p.do("PING")
		return err == nil
	})
}

func (p *redisProcess) kill() {
	if p.command.ProcessState == nil {
		_ = p.command.Process.Kill()
		_ = p.command.Wait()
	}
}

// do sends a command as an administrator.
func (p *redisProcess) do(name string, args ...any) (any, error) {
	conn, err := redis.Dial("tcp", p.addr, redis.DialPassword(redisPassword))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.Do(name, args...)
}

// says reports whether the reply to a command contains a text.
func (p *redisProcess) says(text, name string, args ...any) bool {
	reply, err := redis.String(p.do(name, args...))
	return err == nil && strings.Contains(reply, text)
}

// proofs uses a store like the checks of proofs, and records the accepted ones.
type proofs struct {
	store    *Store
	accepted []string
}

// next reports whether a fresh proof is accepted. It must return within the timeout.
func (p *proofs) next(t *testing.T) error {
	t.Helper()
	key := freshKey()
	began := time.Now()
	fresh, err := p.store.Use(context.Background(), key, "", time.Now().Add(10*time.Minute))
	if took := time.Since(began); took > patience {
		t.Errorf("Use took %s, want at most %s", took, replayTimeout)
	}
	if err == nil && !fresh {
		t.Errorf("the fresh key %s was used before", key)
	}
	if fresh {
		p.accepted = append(p.accepted, key)
	}
	return err
}

// accept uses the store until it has accepted n more proofs. A use may fail on a machine that is
// very busy.
func (p *proofs) accept(t *testing.T, n int) {
	t.Helper()
	n += len(p.accepted)
	eventually(t, "proofs are accepted", func() bool {
		_ = p.next(t)
		return len(p.accepted) == n
	})
}

// wantRefused checks that no accepted proof is accepted again.
func (p *proofs) wantRefused(t *testing.T) {
	t.Helper()
	again := 0
	for _, key := range p.accepted {
		eventually(t, "the store says whether "+key+" was used", func() bool {
			fresh, err := p.store.Use(context.Background(), key, "", time.Now().Add(10*time.Minute))
			if fresh {
				again++
			}
			return err == nil
		})
	}
	if again > 0 {
		t.Errorf("%d of %d proofs were accepted twice", again, len(p.accepted))
	}
}

// wantServes checks that the store accepts proofs once, shares counts, and is ready.
func wantServes(t *testing.T, store *Store) {
	t.Helper()
	p := &proofs{store: store}
	p.accept(t, 50) // in a cluster they belong to different nodes
	p.wantRefused(t)
	eventually(t, "three requests are counted", func() bool {
		key := freshKey()
		for n := range int64(3) {
			got, err := store.Count(t.Context(), key, time.Now().Add(time.Minute))
			if err != nil {
				return false
			}
			if got != n+1 {
				t.Errorf("the count is %d, want %d", got, n+1)
			}
		}
		return true
	})
	eventually(t, "it is ready", func() bool { return store.Ping(t.Context()) == nil })
}

// faults skips a slow test.
func faults(t *testing.T) {
	t.Helper()
	if os.Getenv("OASGATE_TEST_FAULTS") == "" {
		t.Skip("OASGATE_TEST_FAULTS is not set: see .ci/full")
	}
}

// startSentinel starts a primary, its replicas and a Sentinel. The URL also has a Sentinel that
// does not exist.
func startSentinel(
	t *testing.T, replicas int,
) (nodes []*redisProcess, sentinel *redisProcess, url string) {
	t.Helper()
	primary := startRedis(t, "")
	at := strings.Replace(primary.addr, ":", " ", 1)
	nodes = []*redisProcess{primary}
	for range replicas {
		nodes = append(nodes, startRedis(t, "replicaof "+at+"\n"))
	}
	// A replica that is online can still wait for a second before it gets changes.
	eventually(t, "the replicas have a key", func() bool {
		conn, err := redis.Dial("tcp", primary.addr, redis.DialPassword(redisPassword))
		if err != nil {
			return false
		}
		defer conn.Close()
		if _, err := conn.Do("SET", "ready", 1); err != nil {
			return false
		}
		n, err := redis.Int(conn.Do("WAIT", replicas, 1000))
		return err == nil && n == replicas
	})
	sentinel = startRedis(t, "sentinel monitor primary "+at+` 1
sentinel auth-pass primary `+redisPassword+`
sentinel down-after-milliseconds primary 500
sentinel failover-timeout primary 2000
`, "--sentinel")
	return nodes, sentinel, "redis+sentinel://:" + redisPassword + "@" + freePort(t) + "," +
		sentinel.addr + "/primary/2?sentinel_password=" + redisPassword
}

func TestReplaysOfSentinel(t *testing.T) {
	nodes, _, url := startSentinel(t, 1)
	store := startReplays(t, url)
	wantServes(t, store)
	if !nodes[0].says("db2:keys=", "INFO", "keyspace") {
		t.Error("the keys are not in database 2")
	}

	nodes[1].kill()
	p := &proofs{store: store}
	if err := p.next(t); err == nil || !strings.Contains(err.Error(), "0 replicas have the proof") {
		t.Errorf("without a replica: %v, want an error", err)
	}
	alone := startReplays(t, url+"&replicas=0")
	wantServes(t, alone)

	for what, wrong := range map[string]string{
		`no primary "other"`: strings.Replace(url, "/primary/", "/other/", 1),
		"NOAUTH":             strings.Split(url, "?")[0], // at the Sentinel
		"WRONGPASS":          strings.Replace(url, "//:"+redisPassword, "//:wrong", 1),
	} {
		err := startReplays(t, wrong).Ping(t.Context())
		if err == nil || !strings.Contains(err.Error(), what) ||
			strings.Contains(err.Error(), redisPassword) {
			t.Errorf("%v, want %q, and no password", err, what)
		}
	}
}

// TestReplaysFailOver: when the primary is killed, Sentinel promotes a replica. Until then proofs
// are refused, and afterwards no proof is accepted twice.
func TestReplaysFailOver(t *testing.T) {
	faults(t)
	nodes, sentinel, url := startSentinel(t, 2)
	p := &proofs{store: startReplays(t, url)}
	p.accept(t, 200)
	nodes[0].kill()
	if err := p.next(t); err == nil {
		t.Error("a proof was accepted without a primary")
	}
	failed := 0
	eventually(t, "the replica serves", func() bool {
		if err := p.next(t); err != nil {
			failed++
			return false
		}
		return true
	})
	t.Logf("%d proofs were refused during the failover", failed+1)
	p.accept(t, 200)
	p.wantRefused(t)

	// A primary that is demoted while it runs is not used any more.
	nodes[0].start()
	eventually(t, "the old primary is a replica", func() bool {
		return nodes[0].says("role:slave", "INFO", "replication")
	})
	eventually(t, "a failover on request", func() bool {
		_, err := sentinel.do("SENTINEL", "FAILOVER", "primary")
		return err == nil
	})
	eventually(t, "there is a primary again", func() bool { return p.next(t) == nil })
	p.wantRefused(t)
}

// startCluster starts a cluster of three primaries, each with a number of replicas.
func startCluster(t *testing.T, replicas int) (nodes []*redisProcess, url string) {
	t.Helper()
	cli, err := exec.LookPath("redis-cli")
	if err != nil {
		t.Skip("redis-cli is not installed")
	}
	args := []string{"--no-auth-warning", "-a", redisPassword, "--cluster", "create"}
	for range 3 * (1 + replicas) {
		node := startRedis(t, "cluster-enabled yes\ncluster-port BUS\ncluster-node-timeout 1500\n")
		nodes = append(nodes, node)
		args = append(args, node.addr)
	}
	args = append(args, "--cluster-replicas", fmt.Sprint(replicas), "--cluster-yes")
	if said, err := exec.CommandContext(t.Context(), cli, args...).CombinedOutput(); err != nil {
		t.Fatalf("redis-cli --cluster create: %v\n%s", err, said)
	}
	eventually(t, "all nodes know the cluster", func() bool {
		for _, node := range nodes {
			if !node.says("cluster_state:ok", "CLUSTER", "INFO") ||
				!node.says(fmt.Sprintf("cluster_known_nodes:%d", len(nodes)), "CLUSTER", "INFO") {
				return false
			}
		}
		return true
	})
	return nodes, "redis+cluster://:" + redisPassword + "@" + freePort(t) + "," + nodes[1].addr
}

func TestReplaysOfCluster(t *testing.T) {
	nodes, url := startCluster(t, 0)
	store := startReplays(t, url+"?replicas=0")
	wantServes(t, store)
	for _, node := range nodes {
		if !node.says("db0:keys=", "INFO", "keyspace") {
			t.Errorf("no keys at %s", node.addr)
		}
	}
	if err := (&proofs{store: startReplays(t, url)}).next(t); err == nil ||
		!strings.Contains(err.Error(), "0 replicas have the proof") {
		t.Errorf("without replicas: %v, want an error", err)
	}
	nodes[0].kill()
	eventually(t, "the loss of a node is seen", func() bool {
		err := store.Ping(t.Context())
		return err != nil && strings.Contains(err.Error(), "the Redis cluster is down")
	})
}

// TestReplaysFailOverInCluster: when a node is killed, its replica is promoted.
func TestReplaysFailOverInCluster(t *testing.T) {
	faults(t)
	nodes, url := startCluster(t, 1)
	p := &proofs{store: startReplays(t, url)}
	eventually(t, "the replicas are connected", func() bool { return p.next(t) == nil })
	const run = 100 // successes in sequence, so that all nodes serve
	p.accept(t, run)
	nodes[0].kill()
	eventually(t, "a replica is promoted", func() bool {
		_ = p.next(t)
		return nodes[1].says("cluster_state:ok", "CLUSTER", "INFO") &&
			nodes[1].says(" master,fail ", "CLUSTER", "NODES")
	})
	nodes[0].start() // as a replica: before, it has no keys in INFO
	eventually(t, "all nodes serve", func() bool {
		for range run {
			if p.next(t) != nil {
				return false
			}
		}
		return true
	})
	p.wantRefused(t)
}

// TestClusterMoves: all nodes get other addresses, and only the name in the URL is the same.
func TestClusterMoves(t *testing.T) {
	faults(t)
	old, _ := startCluster(t, 0)
	var node atomic.Pointer[redisProcess] // what the name leads to
	node.Store(old[0])
	name := listen(t)
	defer name.Close()
	go func() {
		for {
			near, err := name.Accept()
			if err != nil {
				return
			}
			go func() {
				defer near.Close()
				if far, err := net.Dial("tcp", node.Load().addr); err == nil {
					go func() { _, _ = io.Copy(near, far); near.Close() }()
					_, _ = io.Copy(far, near)
					far.Close()
				}
			}()
		}
	}()
	store := startReplays(t,
		"redis+cluster://:"+redisPassword+"@"+name.Addr().String()+"?replicas=0")
	wantServes(t, store)
	for _, node := range old {
		node.kill()
	}
	if err := store.Ping(t.Context()); err == nil {
		t.Error("no node is there, and the store is ready")
	}
	moved, _ := startCluster(t, 0)
	node.Store(moved[0])
	eventually(t, "the moved cluster is found", func() bool {
		return store.Ping(t.Context()) == nil
	})
	wantServes(t, store)
}

// TestTLSNames: a server whose IP a Sentinel or a cluster returns must have a certificate of the
// host in the URL, or of the name in the configuration.
func TestTLSNames(t *testing.T) {
	named, err := parseRedisURL("rediss+sentinel://redis.example/primary",
		&tls.Config{ServerName: "redis.internal"})
	if err != nil {
		t.Fatal(err)
	}
	if got := named.tlsFor("192.0.2.1:6379").ServerName; got != "redis.internal" {
		t.Errorf("the certificate is for %q, want the name in the configuration", got)
	}
	for url, want := range map[string]string{
		"rediss+sentinel://redis.example/primary": "redis.example",
		"rediss+cluster://redis.example,other":    "redis.example",
		"rediss+cluster://192.0.2.7":              "",
	} {
		target, err := parseRedisURL(url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := target.tlsFor("192.0.2.1:6379").ServerName; got != want {
			t.Errorf("%s: the certificate of an IP is for %q, want %q", url, got, want)
		}
		if got := target.tlsFor("node.example:6379").ServerName; got != "" { // its own
			t.Errorf("%s: the certificate of a name is for %q", url, got)
		}
	}
}
