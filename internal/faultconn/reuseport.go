//go:build !linux

package faultconn

import "syscall"

const soReusePort = syscall.SO_REUSEPORT
