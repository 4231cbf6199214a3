package impl

import (
	"context"
	"log/slog"
	"strings"
	"testing"
)

// TestSettings checks the faults of the settings, which must not contain passwords.
func TestSettings(t *testing.T) {
	const databases = `expected sqlite:path, or a URL such as postgres://user:password@host:5432/database?sslmode=verify-full, with special characters escaped, such as %40 for @`
	for _, test := range []struct {
		name     string
		settings interface{ Check() error }
		want     string // the complete message
	}{
		{"sqlite", &Serve{Database: "sqlite:data/oasgate.db"}, ""},
		{"postgres and Redis", &Serve{Database: "postgres://user:p%40ss@db.example/app", ReplayStore: "rediss://u:p@redis.example:6379/0"}, ""},
		{"dev", &Dev{Database: "sqlite:data/dev.db"}, ""},
		{"database of another kind", &Serve{Database: "mysql://user:password@db.example/app"},
			`OASGATE_DATABASE_URL is "(hidden, because it can contain a password)": ` + databases},
		{"database without a file", &Serve{Database: "sqlite:"},
			`OASGATE_DATABASE_URL is "sqlite:": expected sqlite: and the path of a file, such as sqlite:data/oasgate.db or sqlite:/var/lib/oasgate/oasgate.db`},
		{"both wrong", &Serve{Database: "sqlite:/", ReplayStore: "x"},
			`OASGATE_DATABASE_URL is "sqlite:/": expected sqlite: and the path of a file, such as sqlite:data/oasgate.db or sqlite:/var/lib/oasgate/oasgate.db
OASGATE_REPLAY_STORE is "(hidden, because it can contain a password)": expected a URL such as redis://user:password@host:6379/0, redis+sentinel://user:password@host1:26379,host2:26379/primary/0 or redis+cluster://user:password@host1:6379,host2:6379, and rediss instead of redis for TLS`},
		{"dev's database", &Dev{Database: "x"}, `--database is "(hidden, because it can contain a password)": ` + databases},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := ""
			if err := test.settings.Check(); err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("the message is\n  %s\nwant\n  %s", got, test.want)
			}
		})
	}
}

// TestOpen checks that Open applies the settings.
func TestOpen(t *testing.T) {
	settings := &Serve{
		Database:    "sqlite:" + t.TempDir() + "/test.db",
		ReplayStore: "redis://127.0.0.1:1",
	}
	service, err := settings.Open(context.Background(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if service.Routes == nil || service.Replays == nil {
		t.Errorf("the service is %+v: want routes and a replay store", service)
	}
	if err := service.Close(); err != nil {
		t.Error(err)
	}
	settings.ReplayStore = ""
	if service, err = settings.Open(context.Background(),
		slog.New(slog.DiscardHandler)); err != nil ||
		service.Replays != nil {
		t.Errorf("the service is %+v, %v: want one without a replay store", service, err)
	} else if err := service.Close(); err != nil {
		t.Error(err)
	}
}

func TestReplayStoreURLs(t *testing.T) {
	for url, good := range map[string]bool{
		"redis://localhost": true, "redis://user:secret@localhost:6379/3": true,
		"rediss://:secret@redis.example": true, "unix:///run/redis": true,
		"redis+sentinel://:secret@a,b:26380,[::1]/primary":                                      true,
		"rediss+sentinel://a/primary/3?replicas=2&sentinel_username=u&sentinel_password=secret": true,
		"redis+cluster://u:secret@a:7000,b:7000?replicas=0":                                     true,
		"rediss+cluster://a": true,

		"localhost:6379": false, "http://localhost": false, "redis://localhost/x": false,
		"redis://user:sec%ret@localhost": false, "redis://user:secret@localhost?unknown=1": false,
		"redis://user:@localhost": false, "redis://": false, "unix://host/run/redis": false,
		"redis://a,b": false, "redis+sentinel://a": false, "redis+sentinel://a/": false,
		"redis+sentinel://a,/primary": false, "redis+sentinel://a/primary/x": false,
		"redis+cluster://a/3": false, "redis+ring://a": false, "redis+://a": false,
		"redis+cluster://a?sentinel_password=secret": false, "redis://a?replicas=1": false,
		"redis+cluster://a?replicas=-1": false, "unix+sentinel:///run/redis": false,
		"redis+sentinel://a/primary?sentinel_username=u": false, "redis://[::1": false,
	} {
		err := (&Serve{Database: "sqlite:test.db", ReplayStore: url}).Check()
		if (err == nil) != good {
			t.Errorf("%s: error %v, want valid: %t", url, err, good)
		}
		if err != nil &&
			(strings.Contains(err.Error(), "sec") || !strings.HasPrefix(err.Error(),
				"OASGATE_REPLAY_STORE is ")) {
			t.Errorf(
				"%s: the fault is %q: want one that names the key, and no part of the password",
				url, err)
		}
	}
}
