package impl

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// database is what differs from one SQL database to another.
type database struct {
	read, write   *sql.DB
	migrationLock mutex
	rowID         string // type of a primary key that numbers rows
	// lost reports whether an error is the fault of the database, for example because it is
	// unreachable or full, and not of the query.
	lost func(err error) bool
}

// sqlitePath returns the path of sqlite:path.
func sqlitePath(raw string) (string, bool) { return strings.CutPrefix(raw, "sqlite:") }

// checkDatabaseURL says what is expected of a database's URL that no store can be opened with.
func checkDatabaseURL(raw string) error {
	if path, ok := sqlitePath(raw); ok {
		if path == "" || path == ":memory:" || strings.HasPrefix(path, "//") || strings.HasSuffix(path, "/") {
			return errors.New("sqlite: and the path of a file, such as sqlite:data/oasgate.db or sqlite:/var/lib/oasgate/oasgate.db")
		}
		return nil
	}
	_, unambiguous := placeOf(raw)
	if _, err := pgx.ParseConfig(raw); err != nil || !unambiguous {
		return errors.New("sqlite:path, or a URL such as postgres://user:password@host:5432/database?sslmode=verify-full, with what means something in URLs escaped in its parts, as %40 for @")
	}
	return nil
}

// placeOf returns what of a postgres: URL can be told: where it is, and nothing of how to get in. It can tell only if
// the one @ is in its authority: else anything may be part of a password.
func placeOf(raw string) (string, bool) {
	scheme, rest, _ := strings.Cut(raw, "://")
	place, _, _ := strings.Cut(rest, "?")
	place, _, _ = strings.Cut(place, "#")
	authority, path, _ := strings.Cut(place, "/")
	host := authority[strings.LastIndex(authority, "@")+1:]
	return scheme + "://" + host + "/" + path, (scheme == "postgres" || scheme == "postgresql") && strings.Count(raw, "@") == strings.Count(authority, "@") && strings.Count(raw, "@") <= 1
}

// redacted is a database's URL, fit for logs.
func redacted(raw string) string {
	if _, ok := sqlitePath(raw); ok {
		return raw
	}
	if place, ok := placeOf(raw); ok {
		return place
	}
	return "(not shown, for it may hold a password)"
}

// openSQLite opens a file. SQLite has one writer at a time: here they wait for each other in Go, in order, where it
// would have them try again and again.
func openSQLite(raw string, timeout time.Duration) (db database, err error) {
	path, _ := sqlitePath(raw)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return db, err
	}
	source := func(path string, pragmas ...string) string {
		file := url.URL{Scheme: "file", OmitHost: true, Path: path}
		waiting := fmt.Sprintf("busy_timeout(%d)", timeout.Milliseconds()) // for other processes
		file.RawQuery = url.Values{"_txlock": {"immediate"}, "_pragma": append([]string{waiting}, pragmas...)}.Encode()
		return file.String()
	}
	kept := []string{
		"journal_mode(wal)", // readers do not wait for the writer
		"synchronous(full)", // what is acknowledged outlives a power cut
		"foreign_keys(on)",
	}
	db = database{
		rowID: "INTEGER PRIMARY KEY AUTOINCREMENT",
		// In a file beside it: what SQLite has to lock a file whole would have to wait until nobody else has it open.
		migrationLock: mutex{lock: "BEGIN EXCLUSIVE", unlock: "ROLLBACK"},
		lost: func(err error) bool {
			refused, ok := errors.AsType[*sqlite.Error](err)
			if !ok {
				return false
			}
			switch refused.Code() & 0xff {
			case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_INTERRUPT:
				return true
			}
			return false
		},
	}
	for _, pool := range []struct {
		db     **sql.DB
		source string
		conns  int
	}{
		{&db.write, source(path, kept...), 1},
		{&db.read, source(path, append(kept, "query_only(on)")...), 4},
		// Not in wal mode: of processes that put a new file into it at the same time one may fail, without waiting.
		{&db.migrationLock.db, source(path + "-migrations"), 1},
	} {
		if *pool.db, err = sql.Open("sqlite", pool.source); err != nil {
			return db, errors.Join(err, db.close())
		}
		(*pool.db).SetMaxOpenConns(pool.conns)
		(*pool.db).SetMaxIdleConns(pool.conns)
	}
	return db, nil
}

func openPostgres(raw string, timeout time.Duration) (database, error) {
	config, err := pgx.ParseConfig(raw)
	if err != nil {
		return database{}, err
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = timeout
	}
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	db.SetConnMaxLifetime(30 * time.Minute)  // so that a new primary, or one more node, gets its share
	const migrations = "7017280570803617792" // any number that nobody else locks
	return database{
		read: db, write: db,
		rowID:         "INTEGER PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY",
		migrationLock: mutex{db, "SELECT pg_advisory_lock(" + migrations + ")", "SELECT pg_advisory_unlock(" + migrations + ")"},
		lost: func(err error) bool {
			refused, ok := errors.AsType[*pgconn.PgError](err)
			if !ok {
				return !errors.Is(err, sql.ErrNoRows) // else it did not come so far as to refuse
			}
			switch (refused.Code + "  ")[:2] { // https://www.postgresql.org/docs/current/errcodes-appendix.html
			case "08", // connection
				"25", // transaction state: a primary that has become a standby is read-only
				"40", // rolled back: serialization, deadlock
				"53", // resources: disk, memory, connections
				"55", // not in the required state
				"57", // operator: shutdown, cancelled
				"58": // system
				return true
			}
			return false
		},
	}, nil
}

func (db database) close() error {
	var faults []error
	closed := map[*sql.DB]bool{nil: true}
	for _, pool := range []*sql.DB{db.read, db.write, db.migrationLock.db} {
		if !closed[pool] {
			faults = append(faults, pool.Close())
		}
		closed[pool] = true
	}
	return errors.Join(faults...)
}
