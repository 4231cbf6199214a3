//go:build !unix

package server

func setReadBuffer(uintptr, int) {}
