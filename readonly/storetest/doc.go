// Package storetest is the contract of readonly.Store as tests. Every implementation runs it.
package storetest
