//go:build unix

package e2e

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestPostgresKilled: while the database is killed and started again, twice, writes are
// acknowledged or get 503, and what is acknowledged is stored once.
func TestPostgresKilled(t *testing.T) {
	faultTest(t)
	db := startPostgres(t)
	w := startWriting(t, postgresURL(db))
	for range 2 {
		db.kill(t)
		w.refused(t)
		w.databaseIs(t, false)
		db.start(t)
		w.acknowledged(t, 60)
		w.databaseIs(t, true)
	}
	w.end(t)
}

// TestPostgresPaused: the same while the database hangs.
func TestPostgresPaused(t *testing.T) {
	faultTest(t)
	db := startPostgres(t)
	w := startWriting(t, postgresURL(db))
	db.signal(t, syscall.SIGSTOP)
	w.refused(t)
	w.databaseIs(t, false)
	db.signal(t, syscall.SIGCONT)
	w.acknowledged(t, 60)
	w.databaseIs(t, true)
	w.end(t)
}

// TestPostgresDemoted: when the primary becomes read-only, and then its standby the primary, the
// server changes to the new one at once, and loses nothing.
func TestPostgresDemoted(t *testing.T) {
	faultTest(t)
	old := startPostgres(t)
	next := old.standby(t)
	both := postgresURL(old, next)
	w := startWriting(t, both)

	// As a failover manager does: no write may come between the copy and the promotion.
	old.query(t, "ALTER SYSTEM SET default_transaction_read_only = on")
	old.query(t, "SELECT pg_reload_conf()")
	w.refused(t)
	// Earlier connections can have a write in progress. The server closes them.
	eventually(t, "no connection is left that can write", func() bool {
		return old.query(t, "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "+
			"AND backend_type = 'client backend' AND backend_start < pg_conf_load_time()") == "0"
	})
	end := old.query(t, "SELECT pg_current_wal_lsn()")
	eventually(t, "the standby has all that the primary has", func() bool {
		return next.query(t, "SELECT pg_last_wal_replay_lsn() >= '"+end+"'") == "t"
	})
	next.query(t, "SELECT pg_promote()")
	w.acknowledged(t, 60)
	// A write that has failed makes the server leave all connections. Others can be in use.
	if n := strings.Count(w.process.stderr.String(), "SQLSTATE 25006"); n == 0 || n > writers {
		t.Errorf("%d writes failed on the demoted primary, want 1 to %d", n, writers)
	}

	// The old primary returns as a standby, still the first of the URL.
	old.kill(t)
	old.becomeStandby(t)
	old.start(t)
	w.acknowledged(t, 60)
	w.end(t)
	p := startServe(t, w.issuer, "OASGATE_DATABASE_URL="+both)
	if _, err := w.author.post(p, "new", "new"); err != nil {
		t.Errorf("a server that starts after the failover: %v", err)
	}
}

// TestPgBouncerKilled: the same behind PgBouncer in transaction mode, which is killed and started
// again, twice.
func TestPgBouncerKilled(t *testing.T) {
	faultTest(t)
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		t.Skip("pgbouncer is not installed")
	}
	db := startPostgres(t)
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	config := db.file(t, "pgbouncer.ini", fmt.Sprintf(`[databases]
postgres = host=127.0.0.1 port=%s user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
`, db.port, port))
	var bouncer *exec.Cmd
	var said output
	begin := func() {
		bouncer = exec.Command(program, config)
		bouncer.SysProcAttr = &syscall.SysProcAttr{Credential: db.owner}
		bouncer.Stdout, bouncer.Stderr = &said, &said
		if err := bouncer.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "PgBouncer listens", func() bool {
			conn, err := net.Dial("tcp", addr)
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
	}
	kill := func() {
		_ = bouncer.Process.Kill()
		_ = bouncer.Wait()
	}
	t.Cleanup(func() {
		kill()
		if t.Failed() {
			t.Logf("PgBouncer:\n%s", &said)
		}
	})
	begin()
	w := startWriting(t, "postgres://postgres@"+addr+"/postgres?sslmode=disable")
	for range 2 {
		kill()
		w.refused(t)
		w.databaseIs(t, false)
		begin()
		w.acknowledged(t, 60)
		w.databaseIs(t, true)
	}
	w.end(t)
}

// writers is how many clients write at the same time.
const writers = 6

// writing is a server whose clients create messages all the time, each until it is acknowledged.
type writing struct {
	process *process
	issuer  *issuerProcess
	author  author
	stop    chan struct{}
	clients sync.WaitGroup

	mu    sync.Mutex
	texts map[string]string // acknowledged, by ID
	fails int               // answers with 503
}

func startWriting(t *testing.T, database string) *writing {
	t.Helper()
	issuer := startIssuer(t)
	w := &writing{
		issuer: issuer,
		author: newAuthor(
			issuer.mint(map[string]any{"sub": "alice", "scope": "read:messages write:messages"})),
		process: startServe(t, issuer, "OASGATE_DATABASE_URL="+database,
			"OASGATE_ADMIN_ADDR=127.0.0.1:0"),
		stop:  make(chan struct{}),
		texts: map[string]string{},
	}
	for n := range writers {
		w.clients.Go(func() { w.write(t, n) })
	}
	t.Cleanup(w.halt)
	w.acknowledged(t, 60)
	return w
}

// write creates messages until the end. What gets 503 is sent again under the same key.
func (w *writing) write(t *testing.T, client int) {
	for n := 0; ; n++ {
		text := fmt.Sprintf("%d/%d", client, n)
		for !t.Failed() {
			got, err := w.author.ask(w.process, http.MethodPost, "/api/messages",
				`{"text":"`+text+`"}`, "Idempotency-Key", text)
			if err != nil {
				t.Errorf("%s: %v", text, err)
				return
			}
			if got.status == http.StatusCreated {
				w.mu.Lock()
				w.texts[strings.TrimPrefix(got.header.Get("Location"), "/api/messages/")] = text
				w.mu.Unlock()
				break
			}
			if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
				t.Errorf("%s: %d %s, want 201, or 503 with Retry-After", text, got.status, got.body)
				return
			}
			w.mu.Lock()
			w.fails++
			w.mu.Unlock()
			time.Sleep(50 * time.Millisecond) // shorter than Retry-After, for a short test
		}
		select {
		case <-w.stop:
			return
		default:
		}
	}
}

func (w *writing) counts() (acknowledged, refused int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.texts), w.fails
}

// acknowledged waits until n more messages are.
func (w *writing) acknowledged(t *testing.T, n int) {
	t.Helper()
	before, _ := w.counts()
	eventually(t, "messages are acknowledged", func() bool {
		now, _ := w.counts()
		return now >= before+n || t.Failed()
	})
}

// refused waits until clients have got 503, and checks that the process is alive.
func (w *writing) refused(t *testing.T) {
	t.Helper()
	_, before := w.counts()
	eventually(t, "clients get 503", func() bool {
		_, now := w.counts()
		return now > before || t.Failed()
	})
	for _, path := range []string{"/healthz", "/readyz"} { // without what others share
		if got := w.process.get(t, path, ""); got.status != http.StatusOK {
			t.Errorf("%s is %d, want 200", path, got.status)
		}
	}
}

// databaseIs waits until the admin listener reports the database as working or not.
func (w *writing) databaseIs(t *testing.T, ok bool) {
	t.Helper()
	admin := w.process.admin(t)
	want := fmt.Sprintf(`"name":"database","ok":%t`, ok)
	eventually(t, "/readyz?verbose has "+want, func() bool {
		return strings.Contains(admin.get(t, "/readyz?verbose", "").body, want)
	})
}

func (w *writing) halt() {
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	w.clients.Wait()
}

// end compares what is stored, the metrics and the log with what the clients saw.
func (w *writing) end(t *testing.T) {
	t.Helper()
	w.halt()
	metrics := w.process.metrics(t)
	if got := w.author.list(t, w.process); !maps.Equal(got, w.texts) {
		t.Errorf("%d messages are stored, want the %d that were acknowledged, each once", len(got),
			len(w.texts))
	}
	requests := func(outcome, cause string) int {
		return int(metrics.sum("authz_requests_total", `operation="createMessage"`,
			`outcome="`+outcome+`"`, `cause="`+cause+`"`))
	}
	if n := requests("succeeded", "none"); n != len(w.texts) {
		t.Errorf("the metrics have %d created messages, the clients %d", n, len(w.texts))
	}
	if n := requests("failed", "unavailable"); n != w.fails {
		t.Errorf("the metrics have %d failed requests, the clients %d", n, w.fails)
	}
	if n := strings.Count(w.process.stderr.String(), "the database is unavailable"); n < w.fails {
		t.Errorf("the log has the cause of %d failures, the clients saw %d", n, w.fails)
	}
	t.Logf("%d messages, each once; %d answers with 503", len(w.texts), w.fails)
}

// postgresServer is a PostgreSQL of the test's own, on a loopback port.
type postgresServer struct {
	bin, dir string
	port     string
	owner    *syscall.Credential // not root, which PostgreSQL refuses
	command  *exec.Cmd
	ended    chan struct{} // closed when command has ended
}

// postgresURL returns the URL of one server, or of several of which one is the primary.
func postgresURL(servers ...*postgresServer) string {
	var hosts []string
	for _, db := range servers {
		hosts = append(hosts, "127.0.0.1:"+db.port)
	}
	return "postgres://postgres@" + strings.Join(hosts, ",") + "/postgres"
}

// startPostgres starts an empty PostgreSQL, or skips the test if it is not installed.
func startPostgres(t *testing.T) *postgresServer {
	t.Helper()
	db := newPostgres(t)
	db.run(t, "initdb", "--pgdata=data", "--username=postgres", "--auth=trust", "--no-sync")
	db.start(t)
	return db
}

func newPostgres(t *testing.T) *postgresServer {
	t.Helper()
	found, err := exec.LookPath("initdb")
	if err != nil {
		installed, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // Debian's
		if len(installed) == 0 {
			t.Skip("PostgreSQL is not installed")
		}
		found = installed[len(installed)-1]
	}
	if found, err = filepath.EvalSymlinks(found); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "postgres") // others cannot enter that of the test
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	db := &postgresServer{bin: filepath.Dir(found), dir: dir, ended: make(chan struct{})}
	close(db.ended)
	_, db.port, _ = net.SplitHostPort(freeAddr(t))
	if os.Getuid() == 0 {
		owner, err := user.Lookup("postgres")
		if err != nil {
			t.Skip(err)
		}
		uid, _ := strconv.Atoi(owner.Uid)
		gid, _ := strconv.Atoi(owner.Gid)
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
		db.owner = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	t.Cleanup(func() {
		db.kill(t)
		if t.Failed() {
			said, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("PostgreSQL on port %s:\n%s", db.port, said)
		}
	})
	return db
}

// standby starts a copy of the server that follows it.
func (db *postgresServer) standby(t *testing.T) *postgresServer {
	t.Helper()
	next := newPostgres(t)
	next.run(t, "pg_basebackup", "--pgdata=data", "--write-recovery-conf", "--checkpoint=fast",
		"--host=127.0.0.1", "--port="+db.port, "--username=postgres")
	next.start(t)
	return next
}

// prepare returns a command of PostgreSQL.
func (db *postgresServer) prepare(name string, args ...string) *exec.Cmd {
	command := exec.Command(filepath.Join(db.bin, name), args...)
	command.Dir = db.dir
	command.SysProcAttr = &syscall.SysProcAttr{Credential: db.owner}
	return command
}

func (db *postgresServer) run(t *testing.T, name string, args ...string) {
	t.Helper()
	if said, err := db.prepare(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, said)
	}
}

// start starts the server and waits until it answers.
func (db *postgresServer) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(db.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY,
		0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	eventually(t, "PostgreSQL answers", func() bool {
		select {
		case <-db.ended: // also while processes of one that was killed are ending
			db.launch(t, log)
		default:
		}
		_, err := db.ask("SELECT 1")
		return err == nil
	})
}

func (db *postgresServer) launch(t *testing.T, log *os.File) {
	t.Helper()
	command := db.prepare("postgres", "-D", "data", "-k", db.dir, "-h", "127.0.0.1", "-p", db.port)
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = command.Wait()
	}()
	db.command, db.ended = command, ended
}

// signal sends a signal to all processes, to the first one first, so that it starts no others.
func (db *postgresServer) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	id := db.command.Process.Pid
	_ = db.command.Process.Signal(s)
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", id, id))
	if err != nil {
		t.Skip("the processes of PostgreSQL cannot be listed: ", err)
	}
	for _, child := range strings.Fields(string(children)) {
		id, _ := strconv.Atoi(child)
		_ = syscall.Kill(id, s)
	}
}

// kill kills all processes at once.
func (db *postgresServer) kill(t *testing.T) {
	t.Helper()
	select {
	case <-db.ended:
	default:
		db.signal(t, syscall.SIGKILL)
		<-db.ended
	}
}

// becomeStandby makes the server a standby when it starts.
func (db *postgresServer) becomeStandby(t *testing.T) {
	t.Helper()
	db.file(t, filepath.Join("data", "standby.signal"))
}

// file writes a file that the owner can read, and returns its path.
func (db *postgresServer) file(t *testing.T, name string, text ...string) string {
	t.Helper()
	path := filepath.Join(db.dir, name)
	writeFile(t, path, text...)
	if db.owner != nil {
		if err := os.Chown(path, int(db.owner.Uid), int(db.owner.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// query runs a statement and returns its result.
func (db *postgresServer) query(t *testing.T, statement string) string {
	t.Helper()
	result, err := db.ask(statement)
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return result
}

func (db *postgresServer) ask(statement string) (result string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, postgresURL(db)+"?sslmode=disable")
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	results, err := conn.PgConn().Exec(ctx, statement).ReadAll()
	for _, r := range results {
		for _, row := range r.Rows {
			result += string(slices.Concat(row...))
		}
	}
	return result, err
}
