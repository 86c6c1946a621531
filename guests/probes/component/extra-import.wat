;; A policy module that wants to write a log.
(component
  (import "host:log/log@1.0.0" (instance (export "write" (func (param "line" string)))))
  (component $nothing)
  (instance $empty (instantiate $nothing))
  (export "leasehold:policy/policy@0.1.0" (instance $empty)))
