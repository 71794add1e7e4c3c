// Package msgpack stores cached values as MessagePack, which is smaller than JSON and keeps the types of numbers:
//
//	leads := cache.Of[Lead](store, "lead", cache.WithCodec(msgpack.Codec{}))
//
// It is a module of its own, so that who does not use it does not download it.
package msgpack
