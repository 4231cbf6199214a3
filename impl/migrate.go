package impl

import (
	"cmp"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// migration is a file of migrations/. Its name begins with its version.
type migration struct {
	version   int64
	name, sql string
}

// allMigrations returns the migrations in the order of their versions.
func allMigrations() ([]migration, error) {
	entries, err := migrationFiles.ReadDir("migrations")
	if err != nil {
		return nil, err
	}
	var all []migration
	for _, entry := range entries {
		text, err := migrationFiles.ReadFile("migrations/" + entry.Name())
		if err != nil {
			return nil, err
		}
		number, _, _ := strings.Cut(entry.Name(), "_")
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: expected a name that begins with a version: %w",
				entry.Name(), err)
		}
		all = append(all, migration{version, entry.Name(), string(text)})
	}
	slices.SortFunc(all, func(a, b migration) int { return cmp.Compare(a.version, b.version) })
	return all, nil
}

// migrate applies the migrations that the database does not have. Other processes that migrate it
// at the same time wait. Versions that are newer than this program are ignored, so that servers can
// be updated one after another.
//
// The table of versions is that of goose (github.com/pressly/goose), which earlier releases used.
func (db database) migrate(ctx context.Context, log *slog.Logger) (err error) {
	all, err := allMigrations()
	if err != nil {
		return err
	}
	unlock, err := db.migrationLock.take(ctx, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	applied, err := db.appliedVersions(ctx)
	if err != nil {
		return err
	}
	for _, m := range all {
		if applied[m.version] {
			continue
		}
		if err := db.apply(ctx, m); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		log.Info("migrated the database", "migration", m.name)
	}
	return nil
}

// appliedVersions returns the versions that the database has. It creates the table of versions if
// it cannot be read, so that a user without the right to create tables can use an existing one.
func (db database) appliedVersions(ctx context.Context) (map[int64]bool, error) {
	applied, readErr := db.readVersions(ctx)
	if readErr == nil {
		return applied, nil
	}
	// Row 0 is what goose expects.
	_, err := db.write.ExecContext(ctx, `
		CREATE TABLE goose_db_version (
			id         `+db.rowID+`,
			version_id BIGINT    NOT NULL,
			is_applied BOOLEAN   NOT NULL,
			tstamp     TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
		);
		INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, TRUE)`)
	if err != nil {
		return nil, errors.Join(readErr, err)
	}
	return db.readVersions(ctx)
}

// readVersions reads the table of versions. Of several rows with one version, the last counts.
func (db database) readVersions(ctx context.Context) (map[int64]bool, error) {
	rows, err := db.write.QueryContext(ctx,
		`SELECT version_id, is_applied FROM goose_db_version ORDER BY id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	applied := map[int64]bool{}
	for rows.Next() {
		var version int64
		var isApplied bool
		if err := rows.Scan(&version, &isApplied); err != nil {
			return nil, err
		}
		applied[version] = isApplied
	}
	return applied, rows.Err()
}

// apply applies a migration and records its version, in one transaction.
func (db database) apply(ctx context.Context, m migration) error {
	tx, err := db.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, m.sql); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx,
		`INSERT INTO goose_db_version (version_id, is_applied) VALUES ($1, TRUE)`,
		m.version); err != nil {
		return err
	}
	return tx.Commit()
}

// mutex is a lock between all processes that use a database. It is released when its connection
// ends, so that a process that is killed leaves no lock behind.
type mutex struct {
	db *sql.DB
	// try begins a transaction that has the lock. It reports false if another process has it.
	try func(ctx context.Context, session *sql.Conn) (bool, error)
}

const (
	lockLimit = 5 * time.Minute // for the migrations of another process
	lockRetry = 200 * time.Millisecond
)

// take waits for the lock, and logs that it does.
func (m mutex) take(ctx context.Context, log *slog.Logger) (unlock func() error, err error) {
	session, err := m.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	end := time.Now().Add(lockLimit)
	for waits := false; ; waits = true {
		switch taken, err := m.try(ctx, session); {
		case err != nil:
			return nil, errors.Join(err, session.Close())
		case taken:
			return func() error {
				_, err := session.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
				return errors.Join(err, session.Close())
			}, nil
		}
		if !waits {
			log.Info("waiting while another process migrates the database",
				"limit", lockLimit.String())
		}
		if time.Now().After(end) {
			return nil, errors.Join(session.Close(), fmt.Errorf("another process has migrated "+
				"the database for %s: stop it, if it hangs, and start again", lockLimit))
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), session.Close())
		case <-time.After(lockRetry):
		}
	}
}
