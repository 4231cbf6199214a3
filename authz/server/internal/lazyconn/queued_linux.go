package lazyconn

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// queued returns how many bytes the kernel has that the peer has not acknowledged (tcp(7)).
func queued(conn net.Conn) (n int64) {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if count, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil {
			n = int64(count)
		}
	})
	return n
}
