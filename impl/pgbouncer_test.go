//go:build unix

package impl

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestPgBouncer: behind PgBouncer in transaction mode, servers that start at once migrate, and
// concurrent requests work.
func TestPgBouncer(t *testing.T) {
	url := pgBouncer(t, postgres(t))
	var stores [3]*Store
	together(len(stores), func(i int) {
		s, err := OpenStore(t.Context(), StoreConfig{URL: url})
		if err != nil {
			t.Errorf("the store does not open: %v", err)
			return
		}
		stores[i] = s
		t.Cleanup(func() { s.Close() })
	})
	if t.Failed() {
		return
	}
	together(24, func(i int) {
		s := stores[i%len(stores)]
		for n := range 20 {
			m, err := s.Create(t.Context(), alice, fmt.Sprint(i, n), fmt.Sprint("key", i, n))
			if err == nil {
				_, err = s.Get(t.Context(), Filter{Owner: alice}, m.ID)
			}
			if err != nil {
				t.Errorf("request %d of %d: %v", n, i, err)
				return
			}
		}
	})
	if n := count(t, stores[0], "messages"); n != 24*20 {
		t.Errorf("%d messages are stored, want %d", n, 24*20)
	}
}

// pgBouncer starts a PgBouncer in transaction mode with 4 connections, and returns its URL.
func pgBouncer(t *testing.T, url string) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		t.Skip("pgbouncer is not installed")
	}
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	dir, err := os.MkdirTemp("", "pgbouncer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "config.ini")
	settings := fmt.Sprintf(`[databases]
test = host=%s port=%d dbname=%s user=%s connect_query='SET search_path TO %s'
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
max_client_conn = 200
logfile = %s/log
pidfile = %s/pid
`, config.Host, config.Port, config.Database, config.User, config.RuntimeParams["search_path"],
		port, dir, dir)
	if err := os.WriteFile(file, []byte(settings), 0o644); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(program, file)
	if os.Getuid() == 0 { // which pgbouncer refuses
		nobody, err := user.Lookup("nobody")
		if err != nil {
			t.Skip(err)
		}
		uid, _ := strconv.Atoi(nobody.Uid)
		gid, _ := strconv.Atoi(nobody.Gid)
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
		command.SysProcAttr = &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)},
		}
	}
	var said strings.Builder
	command.Stdout, command.Stderr = &said, &said
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	bounced := fmt.Sprintf("postgres://%s@127.0.0.1:%d/test?sslmode=disable", config.User, port)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, bounced)
		if err == nil {
			_ = conn.Close(ctx)
			return bounced
		}
		if ctx.Err() != nil {
			log, _ := os.ReadFile(dir + "/log")
			t.Fatalf("pgbouncer does not start: %v\n%s%s", err, said.String(), log)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestDemotedPrimary: after a write has failed because the server has become a standby, its
// connection is replaced.
func TestDemotedPrimary(t *testing.T) {
	s := open(t, StoreConfig{URL: postgres(t)})
	// As far as a connection can tell, a server that is read-only is a standby.
	s.write.SetMaxOpenConns(1)
	if _, err := s.write.Exec("SET default_transaction_read_only = on"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(t.Context(), alice, "refused", ""); err == nil ||
		!strings.Contains(err.Error(), errUnavailable.Error()) {
		t.Fatalf("the error is %v, want %v", err, errUnavailable)
	}
	if _, err := s.Create(t.Context(), alice, "accepted", ""); err != nil {
		t.Errorf("the connection is still used: %v", err)
	}
	if n := count(t, s, "messages"); n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
}
