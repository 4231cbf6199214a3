package impl

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// onEachDatabase runs a test with an empty database of SQLite, and of PostgreSQL if available.
func onEachDatabase(t *testing.T, test func(t *testing.T, url string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, "sqlite:"+filepath.Join(t.TempDir(), "test.db")) })
	t.Run("postgres", func(t *testing.T) { test(t, postgres(t)) })
}

// postgres returns the URL of a new schema, which is dropped after the test.
func postgres(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("PostgreSQL is not tested with -short")
	}
	base := os.Getenv("OASGATE_TEST_DATABASE_URL")
	if base == "" {
		t.Skip(
			"OASGATE_TEST_DATABASE_URL is not set: no PostgreSQL to test with (. .ci/services; " +
				"start_postgres)")
	}
	admin, err := sql.Open("pgx", base)
	if err != nil {
		t.Fatalf("OASGATE_TEST_DATABASE_URL: %v", err)
	}
	schema := "test_" + strings.ToLower(rand.Text())
	if _, err := admin.ExecContext(t.Context(), "CREATE SCHEMA "+schema); err != nil {
		t.Fatalf("OASGATE_TEST_DATABASE_URL: %v", err)
	}
	t.Cleanup(func() {
		if _, err := admin.Exec("DROP SCHEMA " + schema + " CASCADE"); err != nil {
			t.Errorf("schema %s remains: %v", schema, err)
		}
		admin.Close()
	})
	return withQuery(t, base, "search_path", schema)
}

func withQuery(t *testing.T, raw, key, value string) string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	query.Set(key, value)
	u.RawQuery = query.Encode()
	return u.String()
}

// open opens a store until the end of the test.
func open(t *testing.T, config StoreConfig) *Store {
	t.Helper()
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := OpenStore(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	return s
}

var (
	alice = Owner{"https://issuer.example/", "alice"}
	bob   = Owner{"https://issuer.example/", "bob"}
	// another alice, of another issuer
	alias = Owner{"https://issuer.example", "alice"}
)

func anyVersion(int64) bool { return true }

func version(v int64) func(int64) bool { return func(found int64) bool { return found == v } }

func create(t *testing.T, s *Store, owner Owner, text string) Message {
	t.Helper()
	m, err := s.Create(t.Context(), owner, text, "")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestStore(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, url string) {
		s := open(t, StoreConfig{URL: url})
		ctx := t.Context()
		hers, his, theirs := create(t, s, alice, "hers"), create(t, s, bob,
			"his"), create(t, s, alias, "theirs")

		for _, m := range []Message{hers, his, theirs} {
			for _, filter := range []Filter{{Owner: alice}, {Owner: bob},
				{Owner: alias}, {All: true}, {}} {
				sees := filter.All || filter.Owner == m.Owner
				got, err := s.Get(ctx, filter, m.ID)
				if sees && (err != nil || got != m) || !sees && !errors.Is(err, errNoMessage) {
					t.Errorf("%+v gets the message of %+v: %+v, %v", filter, m.Owner, got, err)
				}
				all, err := s.List(ctx, filter, "", 10)
				if err != nil || slices.Contains(all, m) != sees {
					t.Errorf("%+v lists %+v, %v: the message of %+v should be there: %v", filter,
						all, err, m.Owner, sees)
				}
			}
		}
		for _, owner := range []Owner{bob, alias, {}} { // each tries to change what is Alice's
			if _, err := s.Replace(ctx, owner, hers.ID, "stolen", anyVersion); !errors.Is(err,
				errNoMessage) {
				t.Errorf("%+v replaces: %v", owner, err)
			}
			if err := s.Delete(ctx, owner, hers.ID, anyVersion); !errors.Is(err, errNoMessage) {
				t.Errorf("%+v deletes: %v", owner, err)
			}
		}

		now, err := s.Replace(ctx, alice, hers.ID, "better", version(1))
		want := Message{hers.ID, alice, "better", 2}
		if got, _ := s.Get(ctx, Filter{Owner: alice}, hers.ID); err != nil || now != want ||
			got != want {
			t.Errorf("replaced: %+v, %v; then got: %+v; want %+v", now, err, got, want)
		}
		if _, err := s.Replace(ctx, alice, hers.ID, "late", version(1)); !errors.Is(err,
			errChanged) {
			t.Errorf("an old version was replaced: %v", err)
		}
		if err := s.Delete(ctx, alice, hers.ID, version(1)); !errors.Is(err, errChanged) {
			t.Errorf("an old version was deleted: %v", err)
		}
		if err := s.Delete(ctx, alice, hers.ID, version(2)); err != nil {
			t.Error(err)
		}
		if err := s.Delete(ctx, alice, hers.ID, anyVersion); !errors.Is(err, errNoMessage) {
			t.Errorf("deleted twice: %v", err)
		}
		if got, err := s.Get(ctx, Filter{Owner: bob}, his.ID); err != nil || got != his {
			t.Errorf("Bob's message is now %+v, %v", got, err)
		}
	})
}

func TestStoreKeepsTextAsItIs(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, url string) {
		s := open(t, StoreConfig{URL: url})
		for _, text := range []string{
			" ", "\n\r\t", "'; DROP TABLE messages; --", `\'"$1 ?1 %s`, strings.Repeat("😀", 1000), "e\u0301 \u00e9 \ufeff\u202e", "\x7f\x01",
		} {
			m := create(t, s, Owner{"i'\"", "s'\"\\"}, text)
			if got, err := s.Get(t.Context(), Filter{Owner: m.Owner}, m.ID); err != nil ||
				got.Text != text ||
				got.Owner != m.Owner {
				t.Errorf("%q of %q became %+v, %v", text, m.Owner, got, err)
			}
		}
	})
}

func TestStorePages(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, url string) {
		s := open(t, StoreConfig{URL: url})
		var newestFirst []string
		for i := range 25 {
			newestFirst = slices.Insert(newestFirst, 0, create(t, s, alice, fmt.Sprint(i)).ID)
			create(t, s, bob, "between")
		}
		for _, limit := range []int{1, 7, 24, 25, 26} {
			var got []string
			for before := ""; ; before = got[len(got)-1] {
				page, err := s.List(t.Context(), Filter{Owner: alice}, before, limit)
				if err != nil || len(page) > limit {
					t.Fatalf("a page of %d has %d: %v", limit, len(page), err)
				}
				if len(page) == 0 {
					break
				}
				for _, m := range page {
					got = append(got, m.ID)
				}
			}
			if !slices.Equal(got, newestFirst) {
				t.Errorf("pages of %d: got\n%v, want\n%v", limit, got, newestFirst)
			}
		}
	})
}

func TestIdempotencyKeys(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, url string) {
		var clock atomic.Int64
		clock.Store(time.Now().Unix())
		s := open(t,
			StoreConfig{URL: url, Now: func() time.Time { return time.Unix(clock.Load(), 0) }})
		ctx := t.Context()
		post := func(owner Owner, text, key string) Message {
			t.Helper()
			m, err := s.Create(ctx, owner, text, key)
			if err != nil {
				t.Fatalf("%+v creates %q with key %q: %v", owner, text, key, err)
			}
			return m
		}
		first := post(alice, "text", "key")
		if again := post(alice, "text", "key"); again != first {
			t.Errorf("the same key and text: %+v, then %+v", first, again)
		}
		if _, err := s.Create(ctx, alice, "other", "key"); !errors.Is(err, errKeyReused) {
			t.Errorf("the same key with another text: %v", err)
		}
		for _, other := range []Message{post(bob, "text", "key"), post(alias, "text", "key"),
			post(alice, "text", "Key"), post(alice, "text", "")} {
			if other.ID == first.ID {
				t.Errorf("%+v shares Alice's message by key", other)
			}
		}
		// A repeated request gets the first response, even after the message has changed.
		if _, err := s.Replace(ctx, alice, first.ID, "changed", anyVersion); err != nil {
			t.Fatal(err)
		}
		if again := post(alice, "text", "key"); again != first {
			t.Errorf("after a change: %+v, want %+v", again, first)
		}
		if err := s.Delete(ctx, alice, first.ID, anyVersion); err != nil {
			t.Fatal(err)
		}
		if again := post(alice, "text", "key"); again != first {
			t.Errorf("after the end of the message: %+v, want %+v", again, first)
		}
		if _, err := s.Get(ctx, Filter{Owner: alice}, first.ID); !errors.Is(err, errNoMessage) {
			t.Errorf("a deleted message is there again: %v", err)
		}
		clock.Add(int64(keyLifetime/time.Second) - 1)
		if again := post(alice, "text", "key"); again != first {
			t.Errorf("a second before it expires the key is forgotten")
		}
		clock.Add(1)
		second := post(alice, "other", "key")
		if second.ID == first.ID {
			t.Errorf("an expired key is still known")
		}
		if again := post(alice, "other", "key"); again != second {
			t.Errorf("a key that is used again: %+v, then %+v", second, again)
		}
		if n := count(t, s, "idempotency_keys"); n != 4 {
			t.Errorf("%d keys are stored, want 4", n)
		}
		if err := s.sweep(ctx); err != nil {
			t.Fatal(err)
		}
		if n := count(t, s, "idempotency_keys"); n != 1 {
			t.Errorf("%d keys are stored after the sweep, want the one that has not expired", n)
		}
	})
}

func count(t *testing.T, s *Store, table string) (n int) {
	t.Helper()
	if err := s.read.QueryRowContext(t.Context(),
		"SELECT count(*) FROM "+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// together runs f n times at once.
func together(n int, f func(i int)) {
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-begin
			f(i)
		})
	}
	close(begin)
	wg.Wait()
}

func TestOneKeyManyRequests(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, url string) {
		s := open(t, StoreConfig{URL: url})
		for round := range 3 {
			ids := make([]string, 16)
			together(len(ids), func(i int) {
				m, err := s.Create(t.Context(), alice, "text", fmt.Sprint(round))
				if err != nil {
					t.Error(err)
				}
				ids[i] = m.ID
			})
			if n := count(t, s, "messages"); n != round+1 || len(slices.Compact(ids)) != 1 {
				t.Fatalf("one key, at once: %v; %d messages are there, want %d", ids, n, round+1)
			}
		}
	})
}

// Each acknowledged change increments the version: none is lost.
func TestChangesAtOnce(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, url string) {
		s := open(t, StoreConfig{URL: url})
		m := create(t, s, alice, "0")
		const writers, each = 8, 5
		together(writers, func(i int) {
			for range each {
				if i%2 == 0 { // any version
					if _, err := s.Replace(t.Context(), alice, m.ID, "x", anyVersion); err != nil {
						t.Error(err)
					}
					continue
				}
				for { // only the version that was read
					seen, err := s.Get(t.Context(), Filter{Owner: alice}, m.ID)
					if err != nil {
						t.Error(err)
						return
					}
					_, err = s.Replace(t.Context(), alice, m.ID, "x", version(seen.Version))
					if err == nil {
						break
					}
					if !errors.Is(err, errChanged) {
						t.Error(err)
						return
					}
				}
			}
		})
		got, err := s.Get(t.Context(), Filter{Owner: alice}, m.ID)
		if err != nil || got.Version != 1+writers*each {
			t.Errorf("after %d changes the version is %d, %v", writers*each, got.Version, err)
		}
		var deleted atomic.Int32
		together(writers, func(int) {
			switch err := s.Delete(t.Context(), alice, m.ID, anyVersion); {
			case err == nil:
				deleted.Add(1)
			case !errors.Is(err, errNoMessage):
				t.Error(err)
			}
		})
		if deleted.Load() != 1 {
			t.Errorf("one message was deleted %d times", deleted.Load())
		}
	})
}

// Between the look at a version and the change of it somebody else may change it: then all is
// looked at again.
func TestChangedInBetween(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, url string) {
		s := open(t, StoreConfig{URL: url})
		for _, test := range []struct {
			name    string
			matches func(version int64) bool
			want    error
		}{{"what was seen", version(1), errChanged}, {"whatever is there", anyVersion, nil}} {
			for name, change := range map[string]func(id string, matches func(int64) bool) error{
				"replace": func(id string, matches func(int64) bool) error {
					_, err := s.Replace(t.Context(), alice, id, "mine", matches)
					return err
				},
				"delete": func(id string, matches func(int64) bool) error { return s.Delete(t.Context(), alice, id, matches) },
			} {
				m := create(t, s, alice, "x")
				var looked []int64
				err := change(m.ID, func(v int64) bool {
					if looked = append(looked, v); len(looked) == 1 {
						if _, err := s.Replace(t.Context(), alice, m.ID, "theirs",
							anyVersion); err != nil {
							t.Fatal(err)
						}
					}
					return test.matches(v)
				})
				if !errors.Is(err, test.want) || !slices.Equal(looked, []int64{1, 2}) {
					t.Errorf("%s %s: %v, having looked at %v; want %v, and both versions looked at",
						name, test.name, err, looked, test.want)
				}
				if got, _ := s.Get(t.Context(), Filter{Owner: alice}, m.ID); test.want != nil &&
					got.Text != "theirs" {
					t.Errorf("%s %s: the other's change is lost: %+v", name, test.name, got)
				}
			}
		}
	})
}

func TestStoreIsDurable(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, url string) {
		first, err := OpenStore(t.Context(),
			StoreConfig{URL: url, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		m := create(t, first, alice, "kept")
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := open(t, StoreConfig{URL: url}).Get(t.Context(),
			Filter{Owner: alice}, m.ID); err != nil ||
			got != m {
			t.Errorf("opened again: %+v, %v; want %+v", got, err, m)
		}
	})
}

// Servers that start at the same time with an empty database apply each migration once.
func TestStoresOpenedAtOnce(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, url string) {
		var mu sync.Mutex
		log := &logBuffer{}
		var stores []*Store
		together(8, func(int) {
			s, err := OpenStore(t.Context(),
				StoreConfig{URL: url, Logger: slog.New(slog.NewTextHandler(log, nil))})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			stores = append(stores, s)
		})
		for i, s := range stores {
			create(t, s, alice, fmt.Sprint(i))
			defer s.Close()
		}
		if n := strings.Count(log.String(), "00001_messages.sql"); n != 1 {
			t.Errorf("the migration was applied %d times:\n%s", n, log)
		}
	})
}

// Migrations wait for the lock of another process.
func TestMigrationsWait(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, url string) {
		s := open(t, StoreConfig{URL: url})
		unlock, err := s.migrationLock.take(t.Context(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		opened, log := make(chan error, 1), &logBuffer{}
		go func() {
			other, err := OpenStore(t.Context(),
				StoreConfig{URL: url, Logger: slog.New(slog.NewTextHandler(log, nil))})
			if err == nil {
				err = other.Close()
			}
			opened <- err
		}()
		select {
		case err := <-opened:
			t.Fatalf("opened, with %v, while another process has the lock", err)
		case <-time.After(200 * time.Millisecond):
		}
		create(t, s, alice, "the lock keeps nobody from writing")
		if err := unlock(); err != nil {
			t.Fatal(err)
		}
		if err := <-opened; err != nil {
			t.Errorf("not opened once the lock is free: %v", err)
		}
		if strings.HasPrefix(url, "postgres") && // SQLite waits 5 s before the first message
			strings.Count(log.String(), "waiting while another process") != 1 {
			t.Errorf("the log does not say once that it waits:\n%s", log)
		}
	})
}

// A server starts with a database that a newer version has migrated.
func TestNewerTables(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, url string) {
		s := open(t, StoreConfig{URL: url})
		if _, err := s.write.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES " +
			"(99999, TRUE)"); err != nil {
			t.Fatal(err)
		}
		create(t, open(t, StoreConfig{URL: url}), alice, "x")
	})
}

func TestKeysAreSweptHourly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // with a fake clock
		s := open(t, StoreConfig{URL: "sqlite:" + t.TempDir() + "/test.db"})
		if _, err := s.Create(t.Context(), alice, "x", "k"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(keyLifetime - time.Minute)
		if n := count(t, s, "idempotency_keys"); n != 1 {
			t.Errorf("%d keys are stored a minute before they expire, want 1", n)
		}
		time.Sleep(time.Hour + 2*time.Minute)
		if n := count(t, s, "idempotency_keys"); n != 0 {
			t.Errorf("%d keys are stored an hour after they have expired, want none", n)
		}
	})
}

func TestSQLiteIsSetUp(t *testing.T) {
	s := open(t, StoreConfig{URL: "sqlite:" + t.TempDir() + "/test.db"})
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2",
		"foreign_keys": "1", "busy_timeout": "5000"} {
		for name, pool := range map[string]*sql.DB{"read": s.read, "write": s.write} {
			var got string
			if err := pool.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
				t.Errorf("%s of the connections that %s is %s, %v; want %s", pragma, name, got, err,
					want)
			}
		}
	}
	if _, err := s.read.Exec("DELETE FROM messages"); err == nil {
		t.Errorf("the connections for reading can write")
	}
}

// Errors of PostgreSQL are either outages or failures of the server.
func TestIsUnavailable(t *testing.T) {
	db, err := openPostgres("postgres://localhost/app", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer db.close()
	for code, want := range map[string]bool{
		"08006": true, "25006": true, "40001": true, "40P01": true, "53100": true, "53300": true, "55P03": true, "57P01": true, "57P03": true, "58030": true,
		"22021": false, "23505": false, "42P01": false, "42601": false, "XX000": false,
	} {
		if got := db.isUnavailable(fmt.Errorf("wrapped: %w",
			&pgconn.PgError{Code: code})); got != want {
			t.Errorf("%s is an outage: %v, want %v", code, got, want)
		}
	}
	if db.isUnavailable(sql.ErrNoRows) {
		t.Errorf("an empty result is an outage")
	}
}

func TestFileIsCreated(t *testing.T) {
	for _, name := range []string{"a/b/c.db", "with space & 100%?#;é.db", "%41.db"} {
		path := filepath.Join(t.TempDir(), "new", name)
		create(t, open(t, StoreConfig{URL: "sqlite:" + path}), alice, "x")
		if _, err := os.Stat(path); err != nil {
			t.Errorf("the file is not at its path: %v", err)
		}
		if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("its directory is %v, %v: want access for the owner only", info.Mode(), err)
		}
	}
	t.Chdir(t.TempDir())
	create(t, open(t, StoreConfig{URL: "sqlite:data/relative.db"}), alice, "x")
	if _, err := os.Stat("data/relative.db"); err != nil {
		t.Error(err)
	}
}

// An unreachable, full or locked database is an outage; a missing table is not.
func TestUnavailable(t *testing.T) {
	impatient := func(url string) StoreConfig {
		return StoreConfig{URL: url, Timeout: time.Second}
	}
	wantUnavailable := func(t *testing.T, err error, why string) {
		t.Helper()
		if !errors.Is(err, errUnavailable) || !strings.Contains(err.Error(), why) {
			t.Errorf("error is %v: want %v, because of %q", err, errUnavailable, why)
		}
	}
	t.Run("sqlite/locked", func(t *testing.T) {
		url := "sqlite:" + filepath.Join(t.TempDir(), "test.db")
		s, other := open(t, impatient(url)), open(t, StoreConfig{URL: url})
		m := create(t, s, alice, "x")
		tx, err := other.write.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		_, err = s.Create(t.Context(), alice, "x", "")
		wantUnavailable(t, err, "")
		if took := time.Since(begun); took > patience {
			t.Errorf("it took %s to give up", took)
		}
		if _, err := s.Get(t.Context(), Filter{Owner: alice}, m.ID); err != nil {
			t.Errorf("a reader has to wait for a writer: %v", err)
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		create(t, s, alice, "back")
	})
	t.Run("sqlite/full", func(t *testing.T) {
		s := open(t, StoreConfig{URL: "sqlite:" + filepath.Join(t.TempDir(), "test.db")})
		if _, err := s.write.Exec("PRAGMA max_page_count = 12"); err != nil {
			t.Fatal(err)
		}
		var err error
		for range 100 {
			if _, err = s.Create(t.Context(), alice, strings.Repeat("x", 1000), "k"); err != nil {
				break
			}
			_, err = s.Create(t.Context(), alice, strings.Repeat("x", 1000), "")
			if err != nil {
				break
			}
		}
		wantUnavailable(t, err, "full")
	})
	t.Run("postgres/lost", func(t *testing.T) {
		line := cuttable(t, postgres(t))
		s := open(t, impatient(line.url))
		m := create(t, s, alice, "x")
		line.cut()
		for range 5 {
			begun := time.Now()
			_, err := s.Get(t.Context(), Filter{Owner: alice}, m.ID)
			wantUnavailable(t, err, "")
			_, err = s.Create(t.Context(), alice, "x", "")
			wantUnavailable(t, err, "")
			if took := time.Since(begun); took > patience {
				t.Errorf("it took %s to give up", took)
			}
		}
		line.restore()
		eventually(t, "the database is used again", func() bool {
			_, err := s.Get(t.Context(), Filter{Owner: alice}, m.ID)
			return err == nil
		})
		create(t, s, alice, "back")
	})
	t.Run("postgres/silent", func(t *testing.T) {
		line := cuttable(t, postgres(t))
		s := open(t, impatient(line.url))
		m := create(t, s, alice, "x")
		line.silence.Store(true)
		_, err := s.Get(t.Context(), Filter{Owner: alice}, m.ID)
		wantUnavailable(t, err, "")
		line.silence.Store(false)
		eventually(t, "the database is used again", func() bool {
			_, err := s.Get(t.Context(), Filter{Owner: alice}, m.ID)
			return err == nil
		})
	})
	t.Run("postgres/a host hangs", func(t *testing.T) { // of two
		hanging, err := net.Listen("tcp", "127.0.0.1:0") // without Accept
		if err != nil {
			t.Fatal(err)
		}
		defer hanging.Close()
		url := strings.Replace(cuttable(t, postgres(t)).url, "127.0.0.1:",
			hanging.Addr().String()+",127.0.0.1:", 1)
		s := open(t, StoreConfig{URL: url})
		s.write.SetMaxIdleConns(0) // so that each operation connects
		create(t, s, alice, "x")
	})
	t.Run("postgres/restarted", func(t *testing.T) { // the connections are closed, the server runs
		s := open(t,
			StoreConfig{URL: withQuery(t, postgres(t), "application_name", "to-be-terminated")})
		together(8, func(int) { create(t, s, alice, "x") })
		admin := open(t, StoreConfig{URL: postgres(t)})
		if _, err := admin.write.Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity " +
			"WHERE application_name = 'to-be-terminated'"); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if _, err := s.Get(t.Context(), Filter{Owner: alice}, "x"); err != nil &&
				!errors.Is(err, errUnavailable) &&
				!errors.Is(err, errNoMessage) {
				t.Errorf("error is %v", err)
			}
		}
		create(t, s, alice, "back")
	})
	t.Run("cancelled", func(t *testing.T) {
		onEachDatabase(t, func(t *testing.T, url string) {
			s := open(t, StoreConfig{URL: url})
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, err := s.Create(ctx, alice, "x", "k")
			wantUnavailable(t, err, "cancel")
			_, err = s.List(ctx, Filter{Owner: alice}, "", 1)
			wantUnavailable(t, err, "cancel")
		})
	})
	t.Run("a fault", func(t *testing.T) {
		onEachDatabase(t, func(t *testing.T, url string) {
			s := open(t, StoreConfig{URL: url})
			if _, err := s.write.Exec("DROP TABLE messages"); err != nil {
				t.Fatal(err)
			}
			_, err := s.Create(t.Context(), alice, "x", "k")
			if err == nil || errors.Is(err, errUnavailable) ||
				!strings.Contains(err.Error(), "creating a message") {
				t.Errorf(
					"without its table: %v: want an error that names the operation and is not errUnavailable",
					err)
			}
			if n := count(t, s, "idempotency_keys"); n != 0 {
				t.Errorf("a key was kept of what was not created")
			}
		})
	})
}

// line is a connection to PostgreSQL that the test can interrupt.
type line struct {
	url      string
	listener net.Listener
	silence  atomic.Bool // nothing is transmitted, and the connections stay open

	mu    sync.Mutex
	dead  bool
	conns []net.Conn
}

func cuttable(t *testing.T, raw string) *line {
	t.Helper()
	config, err := pgx.ParseConfig(raw)
	if err != nil {
		t.Fatal(err)
	}
	network, address := pgconn.NetworkAddress(config.Host, config.Port)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := url.URL{
		Scheme: "postgres",
		User:   url.UserPassword(config.User, config.Password),
		Host:   listener.Addr().String(),
		Path:   "/" + config.Database,
	}
	u.RawQuery = url.Values{
		"sslmode":     {"disable"},
		"search_path": {config.RuntimeParams["search_path"]},
	}.Encode()
	l := &line{url: u.String(), listener: listener}
	t.Cleanup(func() { listener.Close(); l.cut() })
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			l.mu.Lock()
			far, err := net.Dial(network, address)
			if err != nil || l.dead {
				near.Close()
				if err == nil {
					far.Close()
				}
				l.mu.Unlock()
				continue
			}
			l.conns = append(l.conns, near, far)
			l.mu.Unlock()
			go l.pass(near, far)
			go l.pass(far, near)
		}
	}()
	return l
}

func (l *line) pass(to, from net.Conn) {
	defer to.Close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if !l.silence.Load() {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = true
	for _, conn := range l.conns {
		conn.Close()
	}
	l.conns = nil
}

func (l *line) restore() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = false
}

// The password of a database URL is in no error and no log line.
func TestPasswordIsHidden(t *testing.T) {
	port := func() string { // without a listener
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		return listener.Addr().String()
	}()
	var log bytes.Buffer
	for _, raw := range []string{
		"postgres://user:hunter2@" + port + "/db",
		"postgres://" + port + "/db?user=u&password=hunter2",
		"postgres://user:hunter2@" + port + "/db?sslmode=bogus",
		"postgres://user:hunter2@" + port + "/db?sslrootcert=/nowhere&sslmode=verify-full",
		"postgres://user:hunter2@host:not-a-port/db",
		"postgres://user:hunter2%zz@" + port + "/db",
		"postgres://user:hunter2/more@" + port + "/db",
		"postgres://user:hun@hunter2@" + port + "/db",
		"postgres://user:hunter2?more@" + port + "/db",
		"postgres://user:12/hunter2@" + port + "/db",
		"postgres://user:hunter2#more@" + port + "/db",
		"postgresql:user:hunter2@" + port,
		"mysql://user:hunter2@" + port + "/db",
		"host=127.0.0.1 password=hunter2",
		"user:hunter2@tcp(127.0.0.1)/db",
		" postgres://user:hunter2@" + port + "/db",
	} {
		fault := errors.Join((&Serve{Database: raw}).Check(), (&Dev{Database: raw}).Check())
		_, err := OpenStore(
			t.Context(),
			StoreConfig{
				URL:     raw,
				Logger:  slog.New(slog.NewTextHandler(&log, nil)),
				Timeout: time.Second,
			},
		)
		if err == nil {
			t.Errorf("%s is opened", raw)
		}
		if text := fmt.Sprint(fault, err, &log); strings.Contains(text, "hunter2") {
			t.Errorf("the password of %s is visible: %s", raw, text)
		}
	}
}

func TestDatabaseURLs(t *testing.T) {
	for raw, shown := range map[string]string{ // as it is logged, or "" if it is invalid
		"sqlite:data/oasgate.db":                 "sqlite:data/oasgate.db",
		"sqlite:/var/lib/oasgate.db":             "sqlite:/var/lib/oasgate.db",
		"sqlite:a?b#c%d":                         "sqlite:a?b#c%d",
		"postgres://db.example/app":              "postgres://db.example/app",
		"postgresql://u:p@db.example:5433/app":   "postgresql://db.example:5433/app",
		"postgres://u:p%40@db.example/app?a=b":   "postgres://db.example/app",
		"postgres://u@/app?host=/run/postgresql": "postgres:///app",
		"postgres://u:p@a:1,b:2/app":             "postgres://a:1,b:2/app",
		"":                                       "",
		"sqlite:":                                "",
		"sqlite::memory:":                        "",
		"sqlite:///oasgate.db":                   "",
		"sqlite:data/":                           "",
		"data/oasgate.db":                        "",
		"file:data/oasgate.db":                   "",
		"POSTGRES://db.example/app":              "",
		"postgres://db.example:x/app":            "",
		"postgres://db.example/app?sslmode=none": "",
		"host=db.example":                        "",
	} {
		err := checkURL(raw)
		if (err == nil) != (shown != "") {
			t.Errorf("%q: %v", raw, err)
		}
		if got := redacted(raw); err == nil && got != shown {
			t.Errorf("%q is shown as %q, want %q", raw, got, shown)
		}
	}
}

// gooseTable is the table of versions as goose v3 creates it.
var gooseTable = map[string]string{
	"sqlite": `CREATE TABLE goose_db_version (
		id INTEGER PRIMARY KEY AUTOINCREMENT,
		version_id INTEGER NOT NULL,
		is_applied INTEGER NOT NULL,
		tstamp TIMESTAMP DEFAULT (datetime('now'))
	)`,
	"postgres": `CREATE TABLE goose_db_version (
		id integer PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY,
		version_id bigint NOT NULL,
		is_applied boolean NOT NULL,
		tstamp timestamp NOT NULL DEFAULT now()
	)`,
}

// TestMigrationsOfGoose opens databases that an earlier release has migrated with goose.
func TestMigrationsOfGoose(t *testing.T) {
	all, err := allMigrations()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		rows    string // of goose_db_version
		tables  bool   // exist
		applied int    // migrations
	}{
		{"migrated", "(0, TRUE), (1, TRUE)", true, len(all) - 1},
		{"interrupted", "(0, TRUE)", false, len(all)},
		{"rolled back and applied again", "(0, TRUE), (1, TRUE), (1, FALSE), (1, TRUE)", true, len(all) - 1},
		{"rolled back", "(0, TRUE), (1, TRUE), (1, FALSE)", false, len(all)},
	} {
		t.Run(test.name, func(t *testing.T) {
			onEachDatabase(t, func(t *testing.T, url string) {
				kind, opener := "postgres", openPostgres
				if _, ok := sqlitePath(url); ok {
					kind, opener = "sqlite", openSQLite
				}
				db, err := opener(url, time.Second*5)
				if err != nil {
					t.Fatal(err)
				}
				statements := []string{gooseTable[kind],
					"INSERT INTO goose_db_version (version_id, is_applied) VALUES " + test.rows}
				if test.tables {
					statements = append(statements, all[0].sql, `INSERT INTO messages
						(id, issuer, subject, text, version) VALUES ('a', 'i', 's', 'kept', 1)`)
				}
				for _, statement := range statements {
					if _, err := db.write.Exec(statement); err != nil {
						t.Fatal(err)
					}
				}
				if err := db.close(); err != nil {
					t.Fatal(err)
				}

				log := &logBuffer{}
				s := open(t, StoreConfig{URL: url, Logger: slog.New(slog.NewTextHandler(log, nil))})
				if n := strings.Count(log.String(), "migrated the database"); n != test.applied {
					t.Errorf("%d migrations were applied, want %d:\n%s", n, test.applied, log)
				}
				if test.tables {
					m, err := s.Get(t.Context(), Filter{All: true}, "a")
					if err != nil || m.Text != "kept" {
						t.Errorf("the message is %+v, %v, want it as it was", m, err)
					}
				}
				create(t, s, alice, "new")
				log = &logBuffer{}
				open(t, StoreConfig{URL: url, Logger: slog.New(slog.NewTextHandler(log, nil))})
				if strings.Contains(log.String(), "migrated the database") {
					t.Errorf("opened again, it migrates again:\n%s", log)
				}
			})
		})
	}
}

// A migration that fails changes nothing, and the next start tries it again.
func TestFailedMigration(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, url string) {
		s := open(t, StoreConfig{URL: url})
		broken := migration{
			2,
			"00002_broken.sql",
			"CREATE TABLE half (id TEXT); SELECT nonsense FROM nowhere",
		}
		if err := s.apply(t.Context(), broken); err == nil {
			t.Fatal("a broken migration was applied")
		}
		if applied, err := s.readVersions(t.Context()); err != nil || applied[2] {
			t.Errorf("versions are %v, %v, want none of the broken migration", applied, err)
		}
		if _, err := s.write.Exec("CREATE TABLE half (id TEXT)"); err != nil {
			t.Errorf("a part of the broken migration remains: %v", err)
		}
	})
}
