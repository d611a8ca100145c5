/** Every message, enum and service of the contract. */

export * from "./gen/mailing/v1/admin_service_pb.js";
export * from "./gen/mailing/v1/civil_date_time_pb.js";
export * from "./gen/mailing/v1/client_pb.js";
export * from "./gen/mailing/v1/client_service_pb.js";
export * from "./gen/mailing/v1/day_of_week_pb.js";
export * from "./gen/mailing/v1/delivery_service_pb.js";
export * from "./gen/mailing/v1/dispatch_pb.js";
export * from "./gen/mailing/v1/error_pb.js";
export * from "./gen/mailing/v1/ledger_pb.js";
export * from "./gen/mailing/v1/log_pb.js";
export * from "./gen/mailing/v1/mailing_pb.js";
export * from "./gen/mailing/v1/mailing_service_pb.js";
export * from "./gen/mailing/v1/message_pb.js";
export * from "./gen/mailing/v1/message_service_pb.js";
export * from "./gen/mailing/v1/schedule_pb.js";
export * from "./gen/mailing/v1/schedule_service_pb.js";
export * from "./gen/mailing/v1/segment_pb.js";
export * from "./gen/mailing/v1/segment_service_pb.js";
export * from "./gen/mailing/v1/time_of_day_pb.js";
export * from "./gen/mailing/v1/webhook_pb.js";
