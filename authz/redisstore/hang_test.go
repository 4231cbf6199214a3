//go:build unix

package redisstore

import (
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestClusterHangs: while all nodes hang, every use ends with an error, and so do those that are in
// progress when the store is closed. redigo's pools panic if one is closed while a use waits in it.
func TestClusterHangs(t *testing.T) {
	faults(t)
	nodes, url := startCluster(t, 0)
	store := startReplays(t, url+"?replicas=0")
	wantServes(t, store)
	signalAll := func(signal syscall.Signal) {
		for _, node := range nodes {
			if err := node.command.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
		}
	}
	use := func() {
		fresh, err := store.Use(t.Context(), freshKey(), "", time.Now().Add(time.Minute))
		if fresh || err == nil {
			t.Errorf("Use returned %v, %v, want an error", fresh, err)
		}
	}
	var group sync.WaitGroup
	signalAll(syscall.SIGSTOP)
	for range 40 {
		for range 100 {
			group.Go(use)
		}
		time.Sleep(100 * time.Millisecond) // so that connections time out while uses wait
	}
	group.Wait()
	signalAll(syscall.SIGCONT)
	eventually(t, "the cluster is used again", func() bool {
		fresh, err := store.Use(t.Context(), freshKey(), "", time.Now().Add(time.Minute))
		return fresh && err == nil
	})
	signalAll(syscall.SIGSTOP)
	for range 200 {
		group.Go(use)
	}
	if err := store.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	group.Wait()
	signalAll(syscall.SIGCONT)
}
