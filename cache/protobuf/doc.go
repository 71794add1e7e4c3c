// Package protobuf stores cached values as protocol buffers:
//
//	leads := cache.Of[*pb.Lead](store, "lead", cache.WithCodec(protobuf.Codec{}))
//
// A view's type is the pointer to a generated message. Fields that one version of a program does not know survive in the
// bytes, but the view's schema is that of the Go type, so an entry of another version of the message is a miss.
package protobuf
